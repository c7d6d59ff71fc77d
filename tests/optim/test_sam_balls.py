"""SAM with other balls: norms other than 2, random directions, several steps of projected ascent."""

import math

import pytest
import torch
from torch import nn

from sam.optim import SAM
from tests.optim.test_sam import SGD, functional_loss, loss_of, make_problem, two_passes, weights_of
from tests.reference import sam as reference


def moves(optimizer, model):
    """Let the optimizer perturb, and return eps and what perturb() returned."""
    before = weights_of(model)
    norm = optimizer.perturb()
    return [new - old for new, old in zip(weights_of(model), before)], norm


@pytest.mark.parametrize("p", [1.5, 3.0, math.inf])
def test_sam_equals_algorithm_1_with_any_p(p):
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.1, p=p, **SGD)
    expected, base = weights_of(model), reference.Sgd(**SGD)
    loss = functional_loss(model, inputs, targets)
    for _ in range(5):
        two_passes(optimizer, model, inputs, targets)
        expected = base.step(expected, reference.sam_gradient(loss, expected, 0.1, p=p))
    for weight, target in zip(weights_of(model), expected):
        torch.testing.assert_close(weight, target, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("p", [1.5, math.inf])
def test_p_norm_is_joint_over_groups_and_the_2_norm_of_the_gradient_is_returned(p):
    model, inputs, targets = make_problem()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "rho": 0.8}]
    optimizer = SAM(groups, torch.optim.SGD, rho=0.4, lr=0.1, p=p)
    loss_of(model, inputs, targets).backward()
    grads = [weight.grad.clone() for weight in model.parameters()]
    eps, norm = moves(optimizer, model)
    unit = reference.perturbation(grads, grads, 1.0, p=p)
    for move, direction, rho in zip(eps, unit, [0.4, 0.4, 0.8, 0.8]):
        torch.testing.assert_close(move, rho * direction, rtol=1e-11, atol=1e-13)
    assert float(norm) == pytest.approx(reference.norm(grads), rel=1e-12)


def test_adaptive_and_plain_groups_share_one_norm():
    model, inputs, targets = make_problem()
    groups = [{"params": model[0].parameters(), "adaptive": True}, {"params": model[2].parameters()}]
    optimizer = SAM(groups, torch.optim.SGD, rho=0.4, lr=0.1)
    before = weights_of(model)
    loss_of(model, inputs, targets).backward()
    scales = [*(weight.abs() for weight in before[:2]), *(torch.ones_like(w) for w in before[2:])]
    scaled = [scale * weight.grad for scale, weight in zip(scales, model.parameters())]
    eps, norm = moves(optimizer, model)
    assert float(norm) == pytest.approx(reference.norm(scaled), rel=1e-12)
    for move, scale, part in zip(eps, scales, scaled):
        torch.testing.assert_close(move, 0.4 * scale * part / norm, rtol=1e-11, atol=1e-13)


def test_random_direction_has_length_rho_and_knows_nothing_of_the_gradient():
    model = nn.Linear(100, 20)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.4, lr=0.1, random_direction=True)
    found = []
    for factor in (1.0, -3.0):
        torch.manual_seed(5)
        for weight in model.parameters():
            weight.grad = torch.linspace(-1, 1, weight.numel()).view_as(weight) * factor
        eps, norm = moves(optimizer, model)
        assert reference.norm(eps) == pytest.approx(0.4, rel=1e-5)
        assert float(norm) == pytest.approx(reference.norm([w.grad for w in model.parameters()]), rel=1e-5)
        optimizer.restore()
        found.append(torch.cat([move.flatten() for move in eps]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    # Of 2020 Gaussian entries: standardised, within five standard errors of mean 0 and fourth moment 3.
    entries = found[0] / found[0].square().mean().sqrt()
    assert abs(entries.mean()) < 5 / 2020**0.5
    assert abs((entries**4).mean() - 3) < 5 * (96 / 2020) ** 0.5
    optimizer.perturb()
    again = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    optimizer.restore()
    again -= torch.cat([weight.detach().flatten() for weight in model.parameters()])
    assert abs(nn.functional.cosine_similarity(again, found[0], dim=0)) < 0.2, "the next one is another"


@pytest.mark.parametrize(("step_size", "num_steps"), [(1.0, 2), (0.4, 5), (3.0, 3)])
def test_climb_is_projected_gradient_ascent(step_size, num_steps):
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.7, lr=0.1)
    before = weights_of(model)
    loss = functional_loss(model, inputs, targets)
    loss_of(model, inputs, targets).backward()
    optimizer.first_step()
    for _ in range(num_steps - 1):
        optimizer.zero_grad()
        loss_of(model, inputs, targets).backward()
        grads = [weight.grad.clone() for weight in model.parameters()]
        norm = optimizer.climb(step_size)
        assert float(norm) == pytest.approx(reference.norm(grads), rel=1e-12)
    expected = reference.climb(loss, before, 0.7, num_steps, step_size)
    for weight, old, eps in zip(weights_of(model), before, expected):
        torch.testing.assert_close(weight, old + eps, rtol=1e-11, atol=1e-12)
    optimizer.restore()
    assert all(torch.equal(new, old) for new, old in zip(weights_of(model), before))


def test_climb_may_step_into_the_ball():
    # Uphill turns around after the first step: eps goes from 0.5 to 0.5 - 0.2.
    weight = nn.Parameter(torch.zeros(1))
    optimizer = SAM([weight], torch.optim.SGD, rho=0.5, lr=0.1)
    for sign, place in ((1.0, 0.5), (-1.0, 0.3)):
        weight.grad = torch.tensor([sign])
        optimizer.climb(0.4) if optimizer.is_perturbed else optimizer.perturb()
        assert weight.item() == pytest.approx(place)


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_climb_with_a_zero_or_not_finite_gradient_stays(bad):
    weight = nn.Parameter(torch.zeros(2))
    optimizer = SAM([weight], torch.optim.SGD, rho=0.5, lr=0.1)
    weight.grad = torch.tensor([3.0, 4.0])
    optimizer.perturb()
    weight.grad = torch.tensor([bad, 0.0])
    optimizer.climb()
    torch.testing.assert_close(weight.detach(), torch.tensor([0.3, 0.4]))


def test_climb_with_rho_zero_leaves_the_weights_to_the_bit():
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.0, lr=0.1)
    before = weights_of(model)
    loss_of(model, inputs, targets).backward()
    optimizer.perturb()
    optimizer.climb()
    assert all(torch.equal(new, old) for new, old in zip(weights_of(model), before))


def test_climb_leaves_alone_what_perturb_left_alone_and_takes_a_missing_gradient_for_zero():
    one, other, never = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    optimizer = SAM([one, other, never], torch.optim.SGD, rho=1.0, lr=0.1)
    (3 * one + 4 * other).sum().backward()
    optimizer.first_step()
    (one + never).sum().backward()
    optimizer.climb()
    expected = nn.functional.normalize(torch.tensor([1.6, 0.8]), dim=0)
    torch.testing.assert_close(torch.cat([one, other]).detach(), expected)
    assert never.item() == 0


@pytest.mark.parametrize("p", [1.0, 0.5, -2.0, float("nan")])
def test_p_out_of_range_is_refused(p):
    with pytest.raises(ValueError, match="p must be greater than 1, infinity included, got"):
        SAM([nn.Parameter(torch.ones(1))], torch.optim.SGD, lr=0.1, p=p)


def test_balls_that_do_not_go_together_are_refused():
    weights = [nn.Parameter(torch.ones(1))]
    for arguments in ({"p": 3.0}, {"random_direction": True}):
        with pytest.raises(ValueError, match="adaptive=True needs p=2 and random_direction=False, got"):
            SAM(weights, torch.optim.SGD, lr=0.1, adaptive=True, **arguments)
        optimizer = SAM(weights, torch.optim.SGD, lr=0.1, **arguments)
        with pytest.raises(ValueError, match="adaptive=True needs p=2 and random_direction=False, got"):
            optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "adaptive": True})
    with pytest.raises(ValueError, match="random_direction=True needs p=2, got p=3.0"):
        SAM(weights, torch.optim.SGD, lr=0.1, p=3.0, random_direction=True)


@pytest.mark.parametrize("arguments", [{"p": 3.0}, {"random_direction": True}, {"adaptive": True}])
def test_climb_on_another_ball_is_refused(arguments):
    weight = nn.Parameter(torch.ones(1))
    optimizer = SAM([weight], torch.optim.SGD, lr=0.1, **arguments)
    assert not optimizer.follows_gradient
    weight.grad = torch.ones(1)
    optimizer.perturb()
    with pytest.raises(ValueError, match="needs p=2, adaptive=False and random_direction=False"):
        optimizer.climb()


def test_climb_in_the_wrong_order_or_with_two_radii_is_refused():
    one, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = SAM([one], torch.optim.SGD, rho=0.5, lr=0.1)
    with pytest.raises(RuntimeError, match="call first_step\\(\\) or perturb\\(\\) first"):
        optimizer.climb()
    one.grad = torch.ones(1)
    optimizer.first_step()
    with pytest.raises(RuntimeError, match="call backward\\(\\) before climb\\(\\)"):
        optimizer.climb()
    optimizer.restore()
    optimizer.add_param_group({"params": [other], "rho": 0.1})
    one.grad = other.grad = torch.ones(1)
    optimizer.perturb()
    with pytest.raises(ValueError, match="needs one rho for all parameter groups, got \\[0.1, 0.5\\]"):
        optimizer.climb()
