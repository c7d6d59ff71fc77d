"""Tests of sam/analysis/compiled_product.py: compiled products are those of eager double backward."""

import functools

import pytest
import torch
from torch import nn

from sam.analysis.compiled_product import compiled_product, forward_over_reverse
from sam.analysis.hessian import SampleHessian, hessian_spectrum
from sam.analysis.sample import SampleLoss
from tests.analysis.networks import assert_same_bits, conv_net, sample_of, state_of
from tests.analysis.test_hessian import Attention

# In torch, for forward derivatives.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")

NETWORKS = {"batch norm": conv_net, "attention": lambda dtype: Attention().to(dtype)}


def assert_same_products(sample, compiled, num_roundings=100):
    """Compare with double backward, to the rounding of the weights' precision."""
    operator = SampleHessian(sample)
    vectors = torch.randn(2, operator.num_weights, dtype=torch.float64).to(sample.weights[0])
    wanted = operator.products(vectors)
    found = SampleHessian(sample, compiled=compiled).products(vectors)
    assert found.dtype == wanted.dtype and not found.requires_grad
    # In units of the largest entry.
    assert (found - wanted).abs().max() <= num_roundings * torch.finfo(found.dtype).eps * wanted.abs().max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_forward_over_reverse_equals_double_backward(name, batch_statistics, dtype):
    sample = sample_of(NETWORKS[name](dtype=dtype), batch_statistics=batch_statistics)
    before = state_of(sample.network)
    assert_same_products(sample, forward_over_reverse(sample))
    assert_same_bits(sample.network, before)


def test_some_weights_of_a_network_have_the_products_of_their_block():
    sample = sample_of(conv_net())
    sample.weights = sample.weights[3:5]
    assert_same_products(sample, forward_over_reverse(sample))


def test_chunks_of_full_size_are_compiled_and_the_last_smaller_one_is_not():
    sample = sample_of(conv_net())  # chunks of 5, 5 and 4 images
    eager, seen = forward_over_reverse(sample), []

    def product(images, targets, vector):
        seen.append(len(images))
        return eager(images, targets, vector)

    assert_same_products(sample, product)
    assert seen == [5, 5, 5, 5], "two chunks for each of two vectors"


@pytest.mark.slow
@pytest.mark.parametrize("batch_statistics", [False, True])
def test_product_is_one_graph_also_with_batch_statistics(monkeypatch, batch_statistics):
    # aot_eager traces and differentiates like the default backend, but writes no C++.
    backend = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", backend)
    torch.compiler.reset()
    told = []
    sample = sample_of(conv_net(), batch_statistics=batch_statistics)
    assert_same_products(sample, compiled_product(sample, told.append))
    assert told == []
    # The network of a later epoch needs no new compilation.
    with torch.compiler.set_stance("fail_on_recompile"):
        later = sample_of(conv_net(seed=1), batch_statistics=batch_statistics)
        assert_same_products(later, compiled_product(later, told.append))
    assert told == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_products_equal_double_backward():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    sample = sample_of(network, batch_statistics=True)
    assert_same_products(sample, compiled_product(sample, pytest.fail))


class Unusual(nn.Module):
    """A layer whose function has no forward derivative."""

    class Double(torch.autograd.Function):
        """Doubles numbers, in the older form of a function."""

        @staticmethod
        def forward(ctx, numbers):
            return 2 * numbers

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    def forward(self, images):
        return self.Double.apply(images)


def test_network_that_torch_cannot_compile_is_analysed_eagerly_with_the_reason():
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 3), Unusual()).double()
    sample, told = sample_of(network), []
    assert compiled_product(sample, told.append) is None
    (line,) = told
    assert line.startswith("hessian: products are not compiled, since torch cannot compile them here (")
    assert "\n" not in line


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch_statistics", [False, True])
def test_compiled_products_on_a_gpu_equal_double_backward(batch_statistics):
    own = sample_of(conv_net(), batch_statistics=batch_statistics)
    device = torch.device("cuda")
    images, targets = own.images.to(device), own.targets.to(device)
    sample = SampleLoss(own.network.to(device), images, targets, 5, batch_statistics)
    assert_same_products(sample, compiled_product(sample, pytest.fail), num_roundings=1000)


@pytest.mark.slow
def test_spectrum_is_the_same_with_compiled_products():
    sample = sample_of(conv_net())
    eager = hessian_spectrum(sample, top=3, steps=20, probes=2)
    other = hessian_spectrum(sample, top=3, steps=20, probes=2, compiled=forward_over_reverse(sample))
    assert other.eigenvalues == pytest.approx(eager.eigenvalues, rel=1e-6)
    assert other.trace == pytest.approx(eager.trace, rel=1e-6)
    assert other.num_products == eager.num_products
