"""The spectral density of a Hessian, smoothed from stochastic Lanczos quadratures."""

import math

import numpy as np
from numpy.typing import NDArray

# The variance of the Gaussians, as a share of the squared width of the spectrum.
RELATIVE_VARIANCE = 1e-5
GRID_POINTS = 2000

Array = NDArray[np.float64]


def kernel_width(lowest: float, highest: float) -> float:
    """Return the width of the Gaussians for a spectrum between two eigenvalues.

    sigma^2 = 1e-5 (highest - lowest)^2. Departs from the code of Ghorbani et al. (2019), which has
    sigma^2 = 1e-5 max(1, highest - lowest): here sigma scales with the eigenvalues.

    Args:
        lowest: Smallest eigenvalue.
        highest: Largest eigenvalue. If both are equal, their absolute value replaces the difference.
    """
    return math.sqrt(RELATIVE_VARIANCE) * (highest - lowest or abs(highest) or 1.0)


def density_grid(lowest: float, highest: float, sigma: float) -> Array:
    """Return an even grid for a density, with a margin of 5 sigma on both sides.

    Args:
        lowest: Smallest eigenvalue.
        highest: Largest eigenvalue.
        sigma: The width from `kernel_width`.
    """
    return np.linspace(lowest - 5 * sigma, highest + 5 * sigma, GRID_POINTS)


def spectral_density(nodes: Array, weights: Array, grid: Array, sigma: float) -> Array:
    """Smooth Lanczos quadratures to a density of eigenvalues with integral 1.

    p(x) = 1/probes sum_k sum_i weights[k, i] N(x; nodes[k, i], sigma^2) (Ghorbani et al. 2019, section 2).

    Args:
        nodes: Ritz values, float [probes, steps].
        weights: Squared first components of the Ritz vectors, float [probes, steps]; each row sums to 1.
        grid: Points of the density, float [G].
        sigma: Standard deviation of the Gaussians, in the unit of the nodes; > 0.

    Returns:
        The density at each point of the grid, float [G].

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
