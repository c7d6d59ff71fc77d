import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam.perturbation import global_norm, move_, scaled_by_weights
from tests.reference import sam as reference


def random_tensors(seed, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (7,), (), (2, 3, 2, 2)]
    return [
        scale * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes
    ]


def test_global_norm_is_that_of_one_long_vector():
    tensors = random_tensors(0)
    joined = torch.cat([tensor.flatten() for tensor in tensors])
    assert global_norm(tensors).dtype == torch.float64
    torch.testing.assert_close(global_norm(tensors), joined.norm(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_global_norm_of_half_precision_is_summed_in_float32(dtype):
    # 300^2 * 4096 overflows float16, and bfloat16 would stop growing at 256 equal terms.
    tensors = [torch.full((4096,), 300.0, dtype=dtype)]
    assert global_norm(tensors).dtype == torch.float32
    exact = float(tensors[0][0]) * 64
    assert float(global_norm(tensors)) == pytest.approx(exact, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rho=st.floats(0, 10), scale=st.floats(1e-6, 1e6))
def test_move_has_length_rho_and_the_direction_of_eq_2(seed, rho, scale):
    weights, grads = random_tensors(seed), random_tensors(seed + 1, scale=scale)
    before = [weight.clone() for weight in weights]
    move_(weights, grads, rho, global_norm(grads))
    expected = reference.perturbation(before, grads, rho)
    for weight, old, eps in zip(weights, before, expected):
        torch.testing.assert_close(weight, old + eps, rtol=1e-13, atol=1e-13)
    moved = reference.norm([weight - old for weight, old in zip(weights, before)])
    assert moved == pytest.approx(rho, rel=1e-9, abs=1e-12)


def test_move_leaves_the_directions_unchanged():
    weights, grads = random_tensors(0), random_tensors(1)
    copies = [grad.clone() for grad in grads]
    move_(weights, grads, 0.1, global_norm(grads))
    assert all(torch.equal(grad, copy) for grad, copy in zip(grads, copies))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_move_with_one_entry_not_finite_leaves_every_weight_as_it_was(bad):
    weights, grads = random_tensors(0), random_tensors(1)
    before = [weight.clone() for weight in weights]
    grads[1][3] = bad
    move_(weights, grads, 0.1, global_norm(grads))
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before))


def test_move_with_zero_gradient_leaves_every_weight_as_it_was():
    weights = random_tensors(0)
    before = [weight.clone() for weight in weights]
    grads = [torch.zeros_like(weight) for weight in weights]
    move_(weights, grads, 0.1, global_norm(grads))
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before))


def test_move_is_right_where_gradient_and_weight_differ_in_memory_format():
    weight = torch.zeros(4, 3, 2, 2, dtype=torch.float64).to(memory_format=torch.channels_last)
    grad = torch.arange(48.0, dtype=torch.float64).view(4, 3, 2, 2)
    move_([weight], [grad], 1.0, global_norm([grad]))
    torch.testing.assert_close(weight, (grad / grad.norm()).contiguous(), check_stride=False)


def test_adaptive_directions_give_the_perturbation_of_asam():
    weights, grads = random_tensors(2), random_tensors(3)
    before = [weight.clone() for weight in weights]
    scaled = scaled_by_weights(weights, grads)
    move_(weights, scaled_by_weights(weights, scaled), 0.7, global_norm(scaled))
    for weight, old, eps in zip(weights, before, reference.perturbation(before, grads, 0.7, adaptive=True)):
        torch.testing.assert_close(weight, old + eps, rtol=1e-13, atol=1e-13)


def test_adaptive_perturbation_does_not_depend_on_the_scale_of_a_layer():
    # ASAM's law: w -> a w with the loss unchanged means g -> g / a, and eps / w stays the same.
    weights, grads = random_tensors(2), random_tensors(3)
    ratios = []
    for factor in (1.0, 5.0):
        scaled = [weights[0] * factor, *[w.clone() for w in weights[1:]]]
        rescaled = [grads[0] / factor, *grads[1:]]
        before = [weight.clone() for weight in scaled]
        lengths = scaled_by_weights(scaled, rescaled)
        move_(scaled, scaled_by_weights(scaled, lengths), 0.5, global_norm(lengths))
        ratios.append([(weight - old) / old for weight, old in zip(scaled, before)])
    for one, other in zip(*ratios):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
