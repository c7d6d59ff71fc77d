"""Tests of sam/figures/density.py."""

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import norm

from sam.figures.density import density_grid, kernel_width, spectral_density


def test_one_node_is_one_gaussian() -> None:
    grid = np.linspace(-1, 3, 50)
    found = spectral_density(np.array([[1.0]]), np.array([[1.0]]), grid, 0.5)
    np.testing.assert_allclose(found, norm.pdf(grid, 1.0, 0.5), rtol=1e-12)


def test_density_is_the_mean_over_probes_of_weighted_gaussians() -> None:
    random = np.random.default_rng(0)
    nodes = random.normal(size=(3, 4))
    weights = random.dirichlet(np.ones(4), size=3)
    grid = np.linspace(-3, 3, 7)
    found = spectral_density(nodes, weights, grid, 0.3)
    for place, x in enumerate(grid):
        slow = 0.0
        for probe in range(3):
            for node, weight in zip(nodes[probe], weights[probe], strict=True):
                slow += weight * norm.pdf(x, node, 0.3) / 3
        assert found[place] == pytest.approx(slow)


def test_density_keeps_mass_and_mean_of_the_quadrature() -> None:
    random = np.random.default_rng(1)
    nodes = 10 * random.exponential(size=(4, 20))
    weights = random.dirichlet(np.ones(20), size=4)
    sigma = kernel_width(nodes.min(), nodes.max())
    grid = density_grid(nodes.min(), nodes.max(), sigma)
    density = spectral_density(nodes, weights, grid, sigma)
    assert trapezoid(density, grid) == pytest.approx(1, abs=1e-6)
    assert trapezoid(density * grid, grid) == pytest.approx((nodes * weights).sum() / 4, rel=1e-6)


def test_width_of_the_gaussians_scales_with_the_spectrum() -> None:
    assert kernel_width(-1, 9) == pytest.approx(10 * kernel_width(-0.1, 0.9))
    assert kernel_width(0, 1) ** 2 == pytest.approx(1e-5)
    assert kernel_width(3, 3) > 0
    assert kernel_width(0, 0) > 0


@pytest.mark.parametrize(
    ("nodes", "weights", "sigma", "text"),
    [
        (np.ones((1, 2)), np.ones((2, 1)), 1.0, r"\(1, 2\).*\(2, 1\).*\[probes, steps\]"),
        (np.ones((1, 2)), np.ones((1, 2)), 0.0, "sigma must be above 0, got 0.0"),
    ],
)
def test_unusable_input_is_named(nodes: np.ndarray, weights: np.ndarray, sigma: float, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        spectral_density(nodes, weights, np.zeros(1), sigma)
