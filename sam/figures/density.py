"""The spectral density of a Hessian, smoothed from the quadratures of stochastic Lanczos."""

import math

import numpy as np
from numpy.typing import NDArray

# Of the Gaussians, as a share of the squared width of the spectrum.
RELATIVE_VARIANCE = 1e-5
GRID_POINTS = 2000

Array = NDArray[np.float64]


def kernel_width(lowest: float, highest: float) -> float:
    """Return the width of the Gaussians for a spectrum between two eigenvalues.

    sigma^2 = 1e-5 (highest - lowest)^2. Departs from Ghorbani et al. (2019), whose code takes
    sigma^2 = 1e-5 max(1, highest - lowest), by being the same share of the picture in every unit.

    Args:
        lowest: Smallest eigenvalue.
        highest: Largest one; where both are equal their size stands for the width.
    """
    return math.sqrt(RELATIVE_VARIANCE) * (highest - lowest or abs(highest) or 1.0)


def density_grid(lowest: float, highest: float, sigma: float) -> Array:
    """Return where to evaluate a density: evenly, with 5 sigma to spare on either side.

    Args:
        lowest: Smallest eigenvalue.
        highest: Largest one.
        sigma: Of `kernel_width`.
    """
    return np.linspace(lowest - 5 * sigma, highest + 5 * sigma, GRID_POINTS)


def spectral_density(nodes: Array, weights: Array, grid: Array, sigma: float) -> Array:
    """Smooth Lanczos quadratures to a density of eigenvalues, whose integral is 1.

    p(x) = 1/probes sum_k sum_i weights[k, i] N(x; nodes[k, i], sigma^2) (Ghorbani et al. 2019, section 2).

    Args:
        nodes: Ritz values, float [probes, steps].
        weights: Their squared first components, float [probes, steps]; those of each probe add up to 1.
        grid: Where to evaluate it, float [G].
        sigma: Width of the Gaussians, in the unit of the nodes; > 0.

    Returns:
        float [G].

    Raises:
        ValueError: If the shapes differ or sigma is not above 0.
    """
    if nodes.ndim != 2 or nodes.shape != weights.shape:
        raise ValueError(f"nodes {nodes.shape} and weights {weights.shape} must both be [probes, steps]")
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, got {sigma}")
    distances = (grid[:, None] - nodes.reshape(1, -1)) / sigma
    peaks = np.exp(-0.5 * distances**2) / (sigma * math.sqrt(2 * math.pi))
    density: Array = peaks @ weights.reshape(-1) / len(nodes)
    return density
