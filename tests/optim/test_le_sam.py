"""LE-SAM as an optimizer: the rise of the linearised loss, its cap, and the schedule of sigma."""

import math

import pytest
import torch

from sam.optim import LESAM
from sam.optim.schedule import rise_and_fall
from tests.optim.test_sam import SGD, functional_loss, loss_of, make_problem, two_passes, weights_of
from tests.optim.test_sam_cost import NothingWaits
from tests.reference import averaged
from tests.reference import sam as reference


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(("sigma", "rho"), [(0.05, 10.0), (0.05, 0.06), (0.3, 0.1)])
def test_le_sam_equals_its_definition_over_20_steps(adaptive, sigma, rho):
    model, inputs, targets = make_problem()
    optimizer = LESAM(model.parameters(), torch.optim.SGD, rho=rho, sigma=sigma, adaptive=adaptive, **SGD)
    oracle = averaged.LESAM(rho, sigma, adaptive=adaptive)
    expected, base = weights_of(model), reference.Sgd(**SGD)
    loss = functional_loss(model, inputs, targets)
    for _ in range(20):
        two_passes(optimizer, model, inputs, targets)
        expected = base.step(expected, oracle.gradient([(loss, loss)], expected))
    for weight, target in zip(weights_of(model), expected):
        torch.testing.assert_close(weight, target, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(("rho", "is_capped"), [(1e6, False), (1e-3, True)])
def test_uncapped_eps_raises_the_linearised_loss_by_sigma(adaptive, rho, is_capped):
    model, inputs, targets = make_problem()
    optimizer = LESAM(model.parameters(), torch.optim.SGD, rho=rho, sigma=0.2, adaptive=adaptive, lr=0.1)
    before = weights_of(model)
    loss_of(model, inputs, targets).backward()
    optimizer.first_step(zero_grad=False)
    eps = [new - old for new, old in zip(weights_of(model), before)]
    rise = sum(float((weight.grad * move).sum()) for weight, move in zip(model.parameters(), eps))
    if is_capped:
        length = reference.norm([e / w.abs() for e, w in zip(eps, before)] if adaptive else eps)
        assert (length, rise < 0.2) == (pytest.approx(rho, rel=1e-9), True)
    else:
        assert rise == pytest.approx(0.2, rel=1e-9)


@pytest.mark.parametrize("settings", [{"sigma": 0.0}, {"rho": 0.0}, {"sigma": 0.0, "rho": 0.0}])
@pytest.mark.parametrize("gradient", [1.0, 0.0, math.nan, math.inf])
def test_zero_settings_and_useless_gradients_move_nothing(settings, gradient):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = LESAM([weight], torch.optim.SGD, lr=0.1, **settings)
    weight.grad = torch.full((3,), gradient)
    with NothingWaits():
        optimizer.first_step()
    assert torch.equal(weight.detach(), torch.ones(3))


def test_a_tiny_gradient_moves_by_the_cap():
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = LESAM([weight], torch.optim.SGD, rho=0.5, sigma=0.35, lr=0.1)
    weight.grad = torch.full((4,), 1e-20)
    optimizer.first_step()
    torch.testing.assert_close(weight.detach(), torch.full((4,), 0.25))


def test_sigma_may_change_is_checked_and_is_saved():
    model, *_ = make_problem()
    optimizer = LESAM(model.parameters(), torch.optim.SGD, lr=0.1)
    optimizer.sigma = 0.2
    loaded = LESAM(model.parameters(), torch.optim.SGD, lr=0.1)
    loaded.load_state_dict(optimizer.state_dict())
    assert loaded.sigma == 0.2
    for wrong in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"sigma must be finite and >= 0, got {wrong}"):
            optimizer.sigma = wrong
    with pytest.raises(TypeError, match="sigma must be a number, got a tensor"):
        optimizer.sigma = torch.ones(())


def test_what_has_no_meaning_is_refused():
    model, inputs, targets = make_problem()
    groups = [{"params": model[0].parameters(), "rho": 0.1}, {"params": model[2].parameters()}]
    optimizer = LESAM(groups, torch.optim.SGD, lr=0.1)
    loss_of(model, inputs, targets).backward()
    with pytest.raises(ValueError, match=r"LESAM needs one rho for all parameter groups, got \[0.1, 1.0\]"):
        optimizer.first_step()
    with pytest.raises(ValueError, match="LESAM has at most one ascent step; use SAM for several"):
        optimizer.climb()


def test_sigma_rises_stays_and_falls():
    factors = [rise_and_fall(step, 200) for step in (0, 5, 10, 100, 160, 180, 200)]
    assert factors == pytest.approx([0, 0.5, 1, 1, 1, 0.5, 0], abs=1e-12)
    assert rise_and_fall(0, 10, warm_up=0.0) == 1
    assert rise_and_fall(10, 10, fall=1.0) == 1
