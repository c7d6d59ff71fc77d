"""SAM where gradients are missing, zero or not finite, and the length of eps over random shapes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sam.optim import SAM
from tests.optim.test_sam import SGD, loss_of, make_problem, two_passes, weights_of
from tests.reference import sam as reference

BALLS = {
    "p=2": {},
    "p=3": {"p": 3.0},
    "p=1.5": {"p": 1.5},
    "p=inf": {"p": math.inf},
    "adaptive": {"adaptive": True},
    "random": {"random_direction": True},
}


def make_parameters(*values):
    return [nn.Parameter(torch.tensor(value)) for value in values]


@pytest.mark.parametrize("arguments", BALLS.values(), ids=BALLS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_entry_that_is_not_finite_leaves_the_weights_and_is_counted(bad, arguments):
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1, **arguments)
    two_passes(optimizer, model, inputs, targets)
    before = weights_of(model)
    loss_of(model, inputs, targets).backward()
    model[0].weight.grad[1, 2] = bad
    optimizer.first_step()
    assert not any(weight.isnan().any() for weight in model.parameters())
    assert all(torch.equal(new, old) for new, old in zip(weights_of(model), before))
    loss_of(model, inputs, targets).backward()
    plain = [old - 0.1 * weight.grad for old, weight in zip(before, model.parameters())]
    optimizer.second_step()
    for weight, expected in zip(weights_of(model), plain):
        torch.testing.assert_close(weight, expected, rtol=1e-15, atol=1e-16)
    assert optimizer.num_not_finite == 1
    two_passes(optimizer, model, inputs, targets)
    assert optimizer.num_not_finite == 1


def test_num_not_finite_is_carried_by_the_state():
    weights = make_parameters([1.0, 2.0])
    optimizer = SAM(weights, torch.optim.SGD, lr=0.1)
    assert optimizer.num_not_finite == 0
    for bad in (math.nan, math.inf, 1.0, -math.inf):
        weights[0].grad = torch.tensor([1.0, bad])
        optimizer.perturb()
        optimizer.restore()
    loaded = SAM(make_parameters([1.0, 2.0]), torch.optim.SGD, lr=0.1)
    loaded.load_state_dict(optimizer.state_dict())
    weights[0].grad = torch.tensor([math.nan, 1.0])
    optimizer.perturb()
    assert (optimizer.num_not_finite, loaded.num_not_finite) == (4, 3)


@pytest.mark.parametrize("arguments", [BALLS[name] for name in BALLS if name != "random"])
def test_a_zero_gradient_gives_the_base_step_and_is_not_counted(arguments):
    weights = make_parameters([1.0, -2.0], [[3.0]])
    optimizer = SAM(weights, torch.optim.SGD, rho=0.3, lr=0.5, weight_decay=1.0, **arguments)
    for step in (optimizer.first_step, optimizer.second_step):
        sum((weight * 0).sum() for weight in weights).backward()
        step()
    assert torch.equal(torch.cat([w.detach().flatten() for w in weights]), torch.tensor([0.5, -1.0, 1.5]))
    assert optimizer.num_not_finite == 0


def test_a_gradient_in_the_second_pass_only_updates_and_does_not_perturb():
    one, late = make_parameters([3.0], [5.0])
    optimizer = SAM([one, late], torch.optim.SGD, rho=0.5, lr=0.1)
    (2 * one).sum().backward()
    optimizer.first_step()
    assert (one.item(), late.item()) == (3.5, 5.0)
    (one**2 + 4 * late).sum().backward()
    optimizer.second_step()
    assert (one.item(), late.item()) == pytest.approx((3 - 0.1 * 7, 5 - 0.1 * 4))


def test_a_gradient_in_the_first_pass_only_perturbs_and_does_not_update():
    one, early = make_parameters([3.0], [5.0])
    optimizer = SAM([one, early], torch.optim.SGD, rho=0.5, lr=0.1, momentum=0.9)
    (3 * one + 4 * early).sum().backward()
    optimizer.first_step()
    assert (one.item(), early.item()) == pytest.approx((3.3, 5.4))
    (2 * one).sum().backward()
    optimizer.second_step()
    assert (one.item(), early.item()) == (pytest.approx(2.8), 5.0)
    assert early not in optimizer.state


def test_groups_that_are_not_perturbed_are_no_part_of_the_norm_and_are_updated():
    one, other = make_parameters([3.0], [5.0])
    groups = [{"params": [one]}, {"params": [other], "perturbed": False}]
    optimizer = SAM(groups, torch.optim.SGD, rho=0.5, lr=0.1)
    (3 * one + 4 * other).sum().backward()
    assert float(optimizer.perturb()) == 3.0
    assert (one.item(), other.item()) == (3.5, 5.0)
    optimizer.second_step()
    assert (one.item(), other.item()) == pytest.approx((2.7, 4.6))
    assert [saved.tolist() for saved in optimizer._saved.last] == [[3.0]]


def test_frozen_layers_are_as_if_they_were_not_there():
    model, inputs, targets = make_problem()
    twin, *_ = make_problem()
    for weight in (*model[0].parameters(), *twin[0].parameters()):
        weight.requires_grad_(False)
    frozen = [{"params": model[0].parameters()}, {"params": model[2].parameters()}]
    optimizer = SAM(frozen, torch.optim.SGD, rho=0.3, **SGD)
    twin_optimizer = SAM(twin[2].parameters(), torch.optim.SGD, rho=0.3, **SGD)
    before = weights_of(model[0])
    for _ in range(3):
        two_passes(optimizer, model, inputs, targets)
        two_passes(twin_optimizer, twin, inputs, targets)
    assert all(torch.equal(new, old) for new, old in zip(weights_of(model[0]), before))
    assert all(torch.equal(a, b) for a, b in zip(weights_of(model), weights_of(twin)))


def test_a_group_added_after_some_steps_takes_part_from_then_on():
    model, inputs, targets = make_problem()
    optimizer = SAM(model[2].parameters(), torch.optim.SGD, rho=0.3, lr=0.1)
    for _ in range(3):
        two_passes(optimizer, model, inputs, targets)
    model.zero_grad()
    optimizer.add_param_group({"params": model[0].parameters(), "rho": 0.6})
    assert optimizer.base_optimizer.param_groups is optimizer.param_groups
    before = weights_of(model)
    loss_of(model, inputs, targets).backward()
    grads = [weight.grad.clone() for weight in model.parameters()]
    optimizer.perturb()
    eps = reference.perturbation(before, grads, 0.3)
    for new, old, move, factor in zip(weights_of(model), before, eps, [2, 2, 1, 1]):
        torch.testing.assert_close(new, old + factor * move, rtol=1e-13, atol=1e-14)
    optimizer.second_step()
    for new, old, grad in zip(weights_of(model), before, grads):
        torch.testing.assert_close(new, old - 0.1 * grad, rtol=1e-13, atol=1e-14)


def test_parameters_of_two_dtypes_share_one_norm():
    single, double = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1, dtype=torch.float64))
    for weights in ([double, single], [single, double]):
        optimizer = SAM(weights, torch.optim.SGD, rho=0.5, lr=0.1)
        single.grad, double.grad = torch.tensor([3.0]), torch.tensor([4.0], dtype=torch.float64)
        assert float(optimizer.perturb()) == pytest.approx(5)
        assert (single.item(), double.item()) == pytest.approx((0.3, 0.4))
        optimizer.restore()


shapes = st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    shapes=shapes,
    rho=st.floats(1e-3, 1e3),
    p=st.one_of(st.floats(1.05, 20), st.just(math.inf)),
    log_scale=st.integers(-8, 8),
    seed=st.integers(0, 2**31),
)
def test_eps_has_p_norm_rho_and_no_point_of_the_ball_is_higher(shapes, rho, p, log_scale, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = [nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in shapes]
    for weight in weights:
        grad = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.grad = grad * 10.0**log_scale
    optimizer = SAM(weights, torch.optim.SGD, rho=rho, p=p, lr=0.1)
    optimizer.perturb()
    eps = [weight.detach() for weight in weights]
    assert reference.p_norm(eps, p) == pytest.approx(rho, rel=1e-12)
    # Hoelder: <g, eps> = rho * ||g||_q is the most that any point of the ball reaches.
    rise = sum(float((weight.grad * move).sum()) for weight, move in zip(weights, eps))
    q = 1 if p == math.inf else p / (p - 1)
    assert rise == pytest.approx(rho * reference.p_norm([w.grad for w in weights], q), rel=1e-12)
