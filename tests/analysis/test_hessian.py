"""Tests of the Hessian of a sample's loss: closed form, finite difference, full matrix, another library."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sam.analysis import hessian
from sam.analysis.hessian import SampleHessian, hessian_spectrum, num_products
from tests.analysis.networks import conv_net, sample_of


class Attention(nn.Module):
    """Fused attention over the rows of an image, and a weight that plays no part."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.idle = nn.Parameter(torch.ones(2))
        self.inputs = nn.Linear(6, 12)
        self.outputs = nn.Linear(4, 3)

    def forward(self, images):
        rows = self.inputs(images.flatten(1, 2)).unflatten(2, (3, 1, 4)).transpose(1, 3)
        return self.outputs(functional.scaled_dot_product_attention(*rows.unbind(2)).mean((1, 2)))


def dense_net(dtype=torch.float64):
    torch.manual_seed(0)
    layers = nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 3), nn.Tanh(), nn.Linear(3, 3)
    return nn.Sequential(*layers).to(dtype)


NETWORKS = {"dense": dense_net, "batch norm": conv_net, "attention": lambda: Attention().double()}


def full_hessian(sample):
    """Return the Hessian as torch.func gives it, all images at once; rows in the order of the weights."""
    names = [name for name, _ in sample.network.named_parameters()]
    sizes = [weight.numel() for weight in sample.weights]

    def loss(flat):
        parts = [part.view_as(weight) for part, weight in zip(flat.split(sizes), sample.weights)]
        logits = torch.func.functional_call(sample.network, dict(zip(names, parts)), (sample.images,))
        return functional.cross_entropy(logits, sample.targets)

    flat = torch.cat([weight.detach().flatten() for weight in sample.weights])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.autograd.functional.jacobian(torch.func.grad(loss), flat)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("memory_bytes", [0, 60_000, 2**30])  # of the graphs none, one or two, all
def test_products_are_those_of_the_full_hessian(name, memory_bytes):
    sample = sample_of(NETWORKS[name]())
    operator = SampleHessian(sample, memory_bytes)
    vectors = torch.randn(3, operator.num_weights, dtype=torch.float64)
    wanted = vectors @ full_hessian(sample)
    for _ in range(2):  # kept graphs are used again
        torch.testing.assert_close(operator.products(vectors), wanted, rtol=1e-9, atol=1e-12)
    assert operator.num_products == 6


def test_a_linear_network_has_the_hessian_of_softmax_regression():
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 3, bias=False)).double()
    sample = sample_of(network)
    x = sample.images.flatten(1)
    p = network(sample.images).softmax(1)
    # mean over images of (diag(p) - p p^T) (x) x x^T
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    wanted = torch.einsum("nab,ni,nj->aibj", inner, x, x).reshape(324, 324) / len(sample)
    vector = torch.randn(324, dtype=torch.float64)
    torch.testing.assert_close(
        SampleHessian(sample).products(vector[None])[0], wanted @ vector, rtol=1e-10, atol=1e-13
    )
    eigenvalues = torch.linalg.eigvalsh(wanted).flip(0)[:28]  # 14 images, rank 2 each; the others are 0
    spectrum = hessian_spectrum(sample, top=324, steps=1, probes=1, memory_bytes=0)
    np.testing.assert_allclose(spectrum.eigenvalues[:28], eigenvalues.detach(), rtol=1e-6)
    np.testing.assert_allclose(spectrum.eigenvalues[28:], 0, atol=1e-12)


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("memory_bytes", [0, 2**30])
def test_a_product_is_the_change_of_the_gradient(batch_statistics, memory_bytes):
    sample = sample_of(conv_net(), batch_statistics=batch_statistics)
    operator = SampleHessian(sample, memory_bytes)
    vector = torch.randn(operator.num_weights, dtype=torch.float64)
    product = operator.products(vector[None])[0]
    move, moved = 1e-6, []
    for sign in (1, -2):
        with torch.no_grad():
            flat = nn.utils.parameters_to_vector(sample.weights) + sign * move * vector
            nn.utils.vector_to_parameters(flat, sample.weights)
        moved.append(torch.cat([grad.flatten() for grad in sample.measure_with_gradient()[2]]))
    # Rounding of the gradient, 1e-16 over 1e-6; a ReLU that switches within the move would show.
    torch.testing.assert_close((moved[0] - moved[1]) / (2 * move), product, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["dense", pytest.param("batch norm", marks=pytest.mark.slow), "attention"])
def test_all_eigenvalues_are_those_of_the_full_hessian(name):
    sample = sample_of(NETWORKS[name]())
    full = full_hessian(sample)
    wanted = torch.linalg.eigvalsh(full).flip(0).numpy()
    size = len(full)
    spectrum = hessian_spectrum(sample, top=size, steps=size + 5, probes=1)
    # The last term is for the eigenvalues that are 0.
    np.testing.assert_allclose(spectrum.eigenvalues, wanted, rtol=1e-6, atol=1e-13 * wanted[0])
    assert spectrum.smallest == pytest.approx(wanted[-1], rel=1e-6)
    assert spectrum.nodes.shape == spectrum.weights.shape == (1, size)
    images = spectrum.eigenvectors @ full
    values = torch.tensor(spectrum.eigenvalues, dtype=torch.float64)[:, None]
    torch.testing.assert_close(images, values * spectrum.eigenvectors, rtol=0, atol=1e-12)
    assert spectrum.num_products == size


def test_the_run_goes_on_until_the_residuals_are_small_or_for_so_many_steps(monkeypatch):
    sample = sample_of(dense_net())
    full = full_hessian(sample)
    wanted = torch.linalg.eigvalsh(full).flip(0)[:5]
    found = hessian_spectrum(sample, top=5, steps=2, probes=1, tolerance=1e-4)
    vectors, values = found.eigenvectors, torch.tensor(found.eigenvalues, dtype=torch.float64)
    residuals = (vectors @ full - values[:, None] * vectors).norm(dim=1)
    np.testing.assert_allclose(found.residuals, residuals, rtol=1e-6, atol=1e-12)
    assert max(found.residuals) <= 1e-4 * values[0] and found.num_products < 40
    np.testing.assert_allclose(values, wanted, rtol=1e-3)
    monkeypatch.setattr(hessian, "LONGEST", 7)
    cut = hessian_spectrum(sample, top=5, steps=2, probes=3, tolerance=1e-4)
    assert cut.num_products == num_products(5, 2, 3) == 11
    assert max(cut.residuals) > 1e-4 * values[0]
    # Nothing is above the largest eigenvalue, and something is within the residual.
    assert 0 <= wanted[0] - cut.eigenvalues[0] <= cut.residuals[0]


def test_trace_and_its_error_over_many_probes():
    sample = sample_of(dense_net())
    eigenvalues = torch.linalg.eigvalsh(full_hessian(sample))
    size, probes = len(eigenvalues), 300
    spectrum = hessian_spectrum(sample, top=1, steps=3, probes=probes)
    assert abs(spectrum.trace - eigenvalues.sum()) < 4 * spectrum.trace_standard_error
    # Variance of P v^T H v for v uniform on the sphere; its estimate from 300 is good to a tenth or so.
    variance = 2 * size / (size + 2) * (eigenvalues.square().sum() - eigenvalues.sum() ** 2 / size)
    assert spectrum.trace_standard_error == pytest.approx((variance / probes).sqrt().item(), rel=0.2)
    # Second moment of the density: tr H^2 / P, exact for each probe after two steps.
    second = (spectrum.weights * spectrum.nodes**2).sum(1)
    assert second.mean() == pytest.approx(eigenvalues.square().mean().item(), abs=4 * second.std() / 300**0.5)
    assert hessian_spectrum(sample, top=1, steps=3, probes=1).trace_standard_error is None


def test_memory_and_chunks_change_nothing_and_the_seed_does():
    def spectrum(memory_bytes, seed=0, chunk_size=5):
        sample = sample_of(conv_net(), chunk_size=chunk_size)
        return hessian_spectrum(sample, top=2, steps=8, probes=3, seed=seed, memory_bytes=memory_bytes)

    reference, other = spectrum(2**30), spectrum(2**30, seed=1)
    for same in (spectrum(0), spectrum(80_000), spectrum(2**30, chunk_size=14)):
        np.testing.assert_allclose(same.nodes, reference.nodes, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(same.weights, reference.weights, rtol=1e-6, atol=1e-10)
        assert same.num_products == reference.num_products
    assert abs(other.trace - reference.trace) > 1e-3
    np.testing.assert_allclose(other.eigenvalues, reference.eigenvalues, rtol=1e-3)


def test_float32_agrees_with_float64():
    spectra = [
        hessian_spectrum(sample_of(conv_net(dtype=dtype)), top=5, steps=40, probes=2)
        for dtype in (torch.float32, torch.float64)
    ]
    assert spectra[0].eigenvectors.dtype == torch.float32
    np.testing.assert_allclose(spectra[0].eigenvalues, spectra[1].eigenvalues, rtol=1e-4)
    assert spectra[0].trace == pytest.approx(spectra[1].trace, rel=1e-4)
    assert spectra[0].trace_standard_error == pytest.approx(spectra[1].trace_standard_error, rel=1e-3)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # in torch, for what curvlinops calls
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_those_of_curvlinops(dtype):
    curvlinops = pytest.importorskip("curvlinops")
    sample = sample_of(conv_net(dtype=dtype))
    theirs = curvlinops.HessianLinearOperator(
        sample.network, nn.CrossEntropyLoss(), sample.weights, list(sample.chunks())
    )
    vector = torch.randn(theirs.shape[0], dtype=dtype)
    tolerance = 1e4 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        SampleHessian(sample).products(vector[None])[0], theirs @ vector, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top": 0}, "top must be from 1 to the number of weights, 96, got 0"),
        ({"top": 97}, "top must be from 1 to the number of weights, 96, got 97"),
        ({"steps": 0}, "steps and probes must be at least 1, got 0 and 4"),
        ({"probes": 0}, "steps and probes must be at least 1, got 90 and 0"),
        ({"tolerance": 0.0}, "tolerance must be above 0, got 0.0; try 1e-3"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        hessian_spectrum(sample_of(dense_net()), **arguments)


def test_weights_that_are_not_finite_are_refused():
    network = dense_net()
    with torch.no_grad():
        network[4].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        hessian_spectrum(sample_of(network))
