"""SAM when something fails or comes out of order: weights return, and no gradient is mistaken for another."""

import copy

import pytest
import torch

from sam.optim import SAM
from sam.optim.perturbation import move_
from tests.optim.test_sam import SGD, loss_of, make_problem, two_passes, weights_of

NEEDS_TWO_PASSES = (
    "SAM takes two passes: call step\\(closure\\), or first_step\\(\\) and second_step\\(\\), or make "
    "the second pass within perturbed_weights\\(\\)"
)


class Stopped(BaseException):
    """Like KeyboardInterrupt, no Exception."""


def equal(weights, others):
    return all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


def make_two():
    """Return two times the same model with SAM, and the data."""
    model, inputs, targets = make_problem()
    twin = copy.deepcopy(model)
    pairs = [(one, SAM(one.parameters(), torch.optim.SGD, rho=0.3, **SGD)) for one in (model, twin)]
    for one, optimizer in pairs:
        two_passes(optimizer, one, inputs, targets)
    return *pairs, inputs, targets


def failing_closure(model, inputs, targets, call, error, after_backward):
    """Return a closure that fails at a call, before or after its backward."""
    calls = []

    def closure():
        calls.append(True)
        fails = len(calls) == call
        if fails and not after_backward:
            raise error
        loss = loss_of(model, inputs, targets)
        loss.backward()
        if fails:
            raise error
        return loss

    return closure


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), Stopped()], ids=["error", "interrupt"])
@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("after_backward", [False, True])
def test_a_closure_that_fails_leaves_the_weights_and_a_usable_optimizer(call, error, after_backward):
    (model, optimizer), (twin, twin_optimizer), inputs, targets = make_two()
    before = weights_of(model)
    with pytest.raises(type(error)):
        optimizer.step(failing_closure(model, inputs, targets, call, error, after_backward))
    assert equal(weights_of(model), before)
    assert not optimizer.is_perturbed
    with pytest.raises(ValueError, match=NEEDS_TWO_PASSES):
        optimizer.step()
    assert equal(weights_of(model), before)
    optimizer.zero_grad()
    for _ in range(2):
        two_passes(optimizer, model, inputs, targets)
        two_passes(twin_optimizer, twin, inputs, targets)
    assert equal(weights_of(model), weights_of(twin))


@pytest.mark.parametrize("call", [1, 2])
def test_after_a_closure_that_fails_after_backward_comes_the_next_batch(call):
    (model, optimizer), (twin, twin_optimizer), inputs, targets = make_two()
    with pytest.raises(RuntimeError):
        optimizer.step(failing_closure(model, -inputs, targets, call, RuntimeError(), True))
    optimizer.step(failing_closure(model, inputs, targets, None, None, False))
    two_passes(twin_optimizer, twin, inputs, targets)
    assert equal(weights_of(model), weights_of(twin))


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), Stopped()], ids=["error", "interrupt"])
@pytest.mark.parametrize("after_backward", [False, True])
def test_a_failure_in_perturbed_weights_leaves_the_weights_and_a_usable_optimizer(error, after_backward):
    (model, optimizer), (twin, twin_optimizer), inputs, targets = make_two()
    before = weights_of(model)
    loss_of(model, inputs, targets).backward()
    with pytest.raises(type(error)):
        with optimizer.perturbed_weights():
            assert optimizer.is_perturbed and not equal(weights_of(model), before)
            if after_backward:
                loss_of(model, inputs, targets).backward()
            raise error
    assert equal(weights_of(model), before)
    with pytest.raises(ValueError, match=NEEDS_TWO_PASSES):
        optimizer.step()
    optimizer.zero_grad()
    for _ in range(2):
        two_passes(optimizer, model, inputs, targets)
        two_passes(twin_optimizer, twin, inputs, targets)
    assert equal(weights_of(model), weights_of(twin))


def test_perturbed_weights_may_be_left_by_hand():
    (model, optimizer), *_, inputs, targets = make_two()
    before = weights_of(model)
    loss_of(model, inputs, targets).backward()
    with pytest.raises(RuntimeError, match="out of memory"), optimizer.perturbed_weights():
        optimizer.restore()
        raise RuntimeError("out of memory")
    assert equal(weights_of(model), before)


def test_step_without_a_closure_is_the_base_step_once_after_each_second_pass():
    (model, optimizer), (twin, twin_optimizer), inputs, targets = make_two()
    loss_of(model, inputs, targets).backward()
    with optimizer.perturbed_weights():
        with pytest.raises(ValueError, match=NEEDS_TWO_PASSES):
            optimizer.step()
        loss_of(model, inputs, targets).backward()
    optimizer.step()
    two_passes(twin_optimizer, twin, inputs, targets)
    assert equal(weights_of(model), weights_of(twin))
    with pytest.raises(ValueError, match=NEEDS_TWO_PASSES):
        optimizer.step()
    optimizer.zero_grad()
    loss_of(model, inputs, targets).backward()
    with pytest.raises(ValueError, match=NEEDS_TWO_PASSES):
        optimizer.step()
    assert equal(weights_of(model), weights_of(twin))


def test_step_before_any_pass_is_refused():
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, **SGD)
    with pytest.raises(ValueError, match=NEEDS_TWO_PASSES):
        optimizer.step()
    loss_of(model, inputs, targets).backward()
    with pytest.raises(ValueError, match=NEEDS_TWO_PASSES):
        optimizer.step()


def test_a_second_perturbation_is_refused_and_the_first_stays():
    (model, optimizer), *_, inputs, targets = make_two()
    before = weights_of(model)
    loss_of(model, inputs, targets).backward()
    optimizer.perturb()
    moved = weights_of(model)
    refused = "the weights are already perturbed; call second_step\\(\\) or restore\\(\\) first"
    with pytest.raises(RuntimeError, match=refused):
        optimizer.first_step()
    with pytest.raises(RuntimeError, match=refused):
        optimizer.step(lambda: loss_of(model, inputs, targets).backward())
    with pytest.raises(RuntimeError, match=refused), optimizer.perturbed_weights():
        pass
    assert equal(weights_of(model), moved)
    optimizer.restore()
    assert equal(weights_of(model), before)


def test_second_step_and_restore_without_a_perturbation_are_refused():
    (model, optimizer), *_ = make_two()
    for call in (optimizer.second_step, optimizer.restore):
        with pytest.raises(
            RuntimeError, match="the weights are not perturbed; call first_step\\(\\) or pert"
        ):
            call()


@pytest.mark.parametrize("way", ["closure", "two_steps"])
def test_hooks_on_steps_are_called_once_per_update(way):
    (model, optimizer), *_, inputs, targets = make_two()
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    if way == "closure":
        optimizer.step(failing_closure(model, inputs, targets, None, None, False))
    else:
        two_passes(optimizer, model, inputs, targets)
    assert calls == ["before", "after"]


def test_step_after_an_update_that_was_skipped_is_refused():
    (model, optimizer), *_, inputs, targets = make_two()
    loss_of(model, inputs, targets).backward()
    with optimizer.perturbed_weights():
        loss_of(model, inputs, targets).backward()
    optimizer.zero_grad()  # as where a GradScaler found an overflow
    loss_of(model, inputs, targets).backward()
    with pytest.raises(ValueError, match=NEEDS_TWO_PASSES):
        optimizer.step()


@pytest.mark.parametrize("way", ["perturb", "closure", "context"])
def test_a_failure_on_the_way_up_brings_the_weights_back(way, monkeypatch):
    # Two radii, so that a group has moved when the second fails, as for want of memory.
    model, inputs, targets = make_problem()
    groups = [{"params": model[0].parameters(), "rho": 0.1}, {"params": model[2].parameters(), "rho": 0.3}]
    optimizer = SAM(groups, torch.optim.SGD, lr=0.1)
    before, moves = weights_of(model), []

    def failing(weights, directions, rho, norm, sign):
        moves.append(rho)
        if len(moves) == 2:
            raise MemoryError
        move_(weights, directions, rho, norm, sign)

    monkeypatch.setattr("sam.optim.sam.move_", failing)
    loss_of(model, inputs, targets).backward()
    with pytest.raises(MemoryError):
        if way == "perturb":
            optimizer.perturb()
        elif way == "closure":
            optimizer.step(lambda: loss_of(model, inputs, targets), first_pass_done=True)
        else:
            with optimizer.perturbed_weights():
                pass
    assert moves == [0.1, 0.3]
    assert equal(weights_of(model), before) and not optimizer.is_perturbed
    two_passes(optimizer, model, inputs, targets)  # and it can go on
