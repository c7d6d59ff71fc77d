"""Tests of the Lanczos iteration on matrices whose eigenvalues are known."""

import numpy as np
import pytest
import torch

from sam.analysis.lanczos import Lanczos, random_vector


def matrix_with(eigenvalues, seed=0):
    """Return a symmetric float64 matrix with these eigenvalues, and its eigenvectors as columns."""
    generator = torch.Generator().manual_seed(seed)
    size = len(eigenvalues)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T, basis


def run_on(matrix, steps, start=None, seed=1):
    generator = torch.Generator().manual_seed(seed)
    run = Lanczos(random_vector(matrix[0], generator) if start is None else start, generator)
    for _ in range(steps):
        run.add(matrix @ run.vector)
    return run


SPECTRA = {
    "spread": [10 * 0.8**i for i in range(40)],
    "repeated": [5.0] * 4 + [2.0] * 3 + [0.0] * 25 + [-1.0] * 3 + [-3.0],
    "identity": [2.0] * 20,
    "zero": [0.0] * 5,
    "one": [3.0],
}


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
def test_all_steps_find_all_eigenvalues_however_often_they_are_repeated(spectrum):
    matrix, _ = matrix_with(spectrum)
    run = run_on(matrix, len(spectrum))
    values, residuals, _ = run.ritz(run.size)
    np.testing.assert_allclose(values, sorted(spectrum, reverse=True), rtol=1e-12, atol=1e-12)
    assert residuals.max() < 1e-12
    vectors = run.ritz_vectors(len(spectrum))
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(len(spectrum)).double(), rtol=0, atol=1e-13)
    lengths = (matrix @ vectors.T - vectors.T * torch.tensor(values.copy())).norm(dim=0)
    assert lengths.max() < 1e-12


def test_the_basis_stays_orthogonal_in_float32_long_after_the_ends_have_converged():
    # Without reorthogonalising, copies of 1000 would come after some 20 steps.
    spectrum = [1000.0, 300.0, 100.0] + [0.01 * i for i in range(497)]
    matrix, _ = matrix_with(spectrum)
    run = run_on(matrix.float(), 150)
    values, _, _ = run.ritz(run.size)
    np.testing.assert_allclose(values[:4], [1000, 300, 100, 4.96], rtol=1e-5)
    vectors = run.ritz_vectors(150)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(150), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_residuals_are_those_of_the_vectors(dtype):
    matrix, _ = matrix_with([*np.linspace(1, 3, 200), 3.5, 4.5, 6.0])
    matrix = matrix.to(dtype)
    for steps in (8, 60):
        run = run_on(matrix, steps)
        values, residuals, _ = run.ritz(steps)
        vectors = run.ritz_vectors(3)
        images = vectors @ matrix - vectors * torch.as_tensor(values[:3].copy(), dtype=dtype)[:, None]
        # Of a product with entries up to 6, in either precision.
        bound = 100 * torch.finfo(dtype).eps
        np.testing.assert_allclose(images.norm(dim=1), residuals[:3], rtol=1e-3, atol=bound)
    assert residuals[0] < bound


def test_quadrature_is_exact_up_to_degree_twice_the_steps_less_one():
    matrix, _ = matrix_with(list(np.linspace(-1, 2, 30)))
    start = torch.arange(1.0, 31.0, dtype=torch.float64)
    run = run_on(matrix, 12, start)
    unit = start / start.norm()
    for steps in (4, 12):  # what is asked for may be shorter than the run
        nodes, weights = run.quadrature(steps)
        assert len(nodes) == len(weights) == steps
        for degree in range(2 * steps + 1):
            wanted = unit @ torch.linalg.matrix_power(matrix, degree) @ unit
            is_exact = np.isclose(weights @ nodes**degree, wanted, rtol=1e-10)
            assert is_exact == (degree < 2 * steps) or degree == 2 * steps == 24


def test_fresh_starts_have_no_weight_in_the_quadrature():
    matrix, basis = matrix_with([7.0, 3.0, 1.0, 1.0, -2.0])
    # From a sum of two eigenvectors two steps see everything.
    nodes, weights = run_on(matrix, 5, 3 * basis[:, 0] + 4 * basis[:, 4]).quadrature(5)
    np.testing.assert_allclose(nodes, [7, 3, 1, 1, -2], atol=1e-12)
    np.testing.assert_allclose(weights, [0.36, 0, 0, 0, 0.64], atol=1e-12)


def test_a_product_that_is_not_finite_is_refused():
    run = Lanczos(torch.ones(3), torch.Generator())
    with pytest.raises(ValueError, match="not finite; look at other weights, or use float64"):
        run.add(torch.tensor([1.0, float("nan"), 0.0]))
