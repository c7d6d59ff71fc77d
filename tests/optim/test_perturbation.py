import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam.optim.perturbation import (
    differentiable_perturbation,
    dual_directions,
    global_norm,
    move_,
    project_,
    scaled_by_weights,
)
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


@pytest.mark.parametrize("p", [1.0, 1.5, 3.0, math.inf])
def test_global_norm_of_other_p_is_that_of_one_long_vector(p):
    tensors = random_tensors(0)
    joined = torch.cat([tensor.flatten() for tensor in tensors])
    expected = torch.linalg.vector_norm(joined, p)
    torch.testing.assert_close(global_norm(tensors, p), expected, rtol=1e-14, atol=0)


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


P_NORMS = st.one_of(st.floats(1.05, 50), st.just(math.inf))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), rho=st.floats(0, 10), scale=st.floats(1e-6, 1e6), p=P_NORMS)
def test_move_along_dual_directions_is_eps_of_eq_2_for_any_p(seed, rho, scale, p):
    # Entries from 0.5 to 2.5 times the scale: the formula as printed stays in range for them, up to q = 21.
    grads = [scale * (tensor.sign() * (0.5 + tensor.abs().clamp(max=2))) for tensor in random_tensors(seed)]
    copies = [grad.clone() for grad in grads]
    weights = [torch.zeros_like(grad) for grad in grads]
    directions, length = dual_directions(grads, p)
    move_(weights, directions, rho, length)
    for weight, eps in zip(weights, reference.perturbation(weights, grads, rho, p=p)):
        torch.testing.assert_close(weight, eps, rtol=1e-10, atol=1e-13)
    assert reference.p_norm(weights, p) == pytest.approx(rho, rel=1e-9, abs=1e-12)
    assert all(torch.equal(grad, copy) for grad, copy in zip(grads, copies))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), p=P_NORMS)
def test_no_other_move_on_the_p_ball_raises_the_linearised_loss_more(seed, p):
    grads, others = random_tensors(seed), random_tensors(seed + 1)

    def rise(directions, length):
        return sum(float((grad * move).sum() / length) for grad, move in zip(grads, directions))

    directions, length = dual_directions(grads, p)
    best = rise(directions, length)
    q = 1 if p == math.inf else p / (p - 1)
    assert best == pytest.approx(reference.p_norm(grads, q), rel=1e-9)  # Hoelder's bound
    assert rise(others, reference.p_norm(others, p)) <= best


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("p", [1.001, 1.5, 3.0, 100.0, math.inf])
def test_dual_directions_stay_in_range_in_float32(p, scale):
    # |g|^(q-1) itself would leave float32: q is 1001 for the first p.
    grads = [torch.tensor([1.0, -0.5, 0.0]) * scale, torch.tensor([[0.25]]) * scale]
    weights = [torch.zeros_like(grad) for grad in grads]
    directions, length = dual_directions(grads, p)
    move_(weights, directions, 0.1, length)
    expected = reference.perturbation(weights, [grad.double() / scale for grad in grads], 0.1, p=p)
    for weight, eps in zip(weights, expected):
        torch.testing.assert_close(weight.double(), eps, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("p", [1.5, 3.0, math.inf])
@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf, -math.inf])
def test_dual_directions_of_a_zero_or_not_finite_gradient_move_nothing(bad, p):
    weights, grads = random_tensors(0), random_tensors(1)
    before = [weight.clone() for weight in weights]
    if bad == 0:
        grads = [torch.zeros_like(grad) for grad in grads]
    else:
        grads[1][3] = bad
    directions, length = dual_directions(grads, p)
    move_(weights, directions, 0.1, length)
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rho=st.floats(0.01, 20))
def test_projection_is_the_nearest_point_of_the_ball(seed, rho):
    weights, centres = random_tensors(seed), random_tensors(seed + 1)
    before, kept = [w.clone() for w in weights], [c.clone() for c in centres]
    project_(weights, centres, rho)
    distance = reference.norm([old - centre for old, centre in zip(before, centres)])
    share = min(1, rho / distance)
    for weight, old, centre in zip(weights, before, centres):
        torch.testing.assert_close(weight, centre + share * (old - centre), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(centre, old) for centre, old in zip(centres, kept))


def test_projection_onto_a_ball_of_radius_zero_gives_the_centres():
    weights, centres = random_tensors(0), random_tensors(1)
    project_(weights, centres, 0.0)
    assert all(torch.equal(weight, centre) for weight, centre in zip(weights, centres))
    project_(weights, centres, 0.0)  # 0 / 0 inside
    assert all(torch.equal(weight, centre) for weight, centre in zip(weights, centres))


def test_differentiable_perturbation_is_eps_and_has_its_derivative():
    grads = [tensor.requires_grad_() for tensor in random_tensors(0)]
    eps, norm = differentiable_perturbation(grads, 0.3)
    plain = [grad.detach() for grad in grads]
    for mine, expected in zip(eps, reference.perturbation(plain, plain, 0.3)):
        torch.testing.assert_close(mine.detach(), expected, rtol=1e-13, atol=1e-13)
    assert norm.item() == pytest.approx(reference.norm(plain), rel=1e-13)
    assert torch.autograd.gradcheck(lambda *g: differentiable_perturbation(g, 0.3)[0][0], grads)


def test_differentiable_perturbation_of_a_zero_gradient_and_its_derivative_are_zero():
    grads = [torch.zeros_like(tensor).requires_grad_() for tensor in random_tensors(0)]
    eps, _ = differentiable_perturbation(grads, 0.3)
    derivative = torch.autograd.grad(sum(move.sum() for move in eps), grads)
    assert all(torch.equal(part, torch.zeros_like(part)) for part in (*eps, *derivative))
