"""step(closure) makes both passes, whatever gradients were there before, however the closure clears them."""

import contextlib

import pytest
import torch
from torch import nn

from sam.optim import SAM

KEPT = "holds gradients from before step\\(closure\\), and the closure does not clear them"


class Three(nn.Module):
    """w = (3, 4) with f = |w|^2 / 2, and a parameter that f does not use."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 4.0]))
        self.unused = nn.Parameter(torch.ones(2))


def make():
    """Return the model and SAM. One update leads to (-3, -4): eps is (3, 4), and the gradient (6, 8)."""
    model = Three()
    return model, SAM(model.parameters(), torch.optim.SGD, rho=5.0, lr=1.0)


def nothing(model, optimizer):
    pass


def left_by_another_player(model, optimizer):
    (-model.weight).sum().backward()


def left_for_an_unused_parameter(model, optimizer):
    model.unused.grad = torch.ones(2)


def zeros(model, optimizer):
    left_by_another_player(model, optimizer)
    optimizer.zero_grad(set_to_none=False)


def skipped_update(model, optimizer):
    (model.weight @ model.weight / 2).backward()
    with optimizer.perturbed_weights():
        (model.weight @ model.weight / 2).backward()


def skipped_update_cleared_by_the_model(model, optimizer):
    skipped_update(model, optimizer)
    model.zero_grad()


def skipped_steps(model, optimizer):
    (model.weight @ model.weight / 2).backward()
    optimizer.first_step()
    (model.weight @ model.weight / 2).backward()
    optimizer.restore()


def failed_update(model, optimizer):
    with pytest.raises(MemoryError):
        optimizer.step(fails)


def fails():
    raise MemoryError


BEFORE = [
    nothing,
    left_by_another_player,
    left_for_an_unused_parameter,
    zeros,
    skipped_update,
    skipped_update_cleared_by_the_model,
    skipped_steps,
    failed_update,
]
CLEARED_BEFORE = [nothing, skipped_update_cleared_by_the_model, failed_update]
CLEARS = {
    "zero_grad": lambda model, optimizer: optimizer.zero_grad(),
    "model.zero_grad": lambda model, optimizer: model.zero_grad(),
    "zeros": lambda model, optimizer: optimizer.zero_grad(set_to_none=False),
    "zeros of the model": lambda model, optimizer: model.zero_grad(set_to_none=False),
    "None": lambda model, optimizer: [setattr(weight, "grad", None) for weight in model.parameters()],
}


def closure_of(model, optimizer, clear, places, num_parts=1):
    """Return a closure that clears the gradients, and makes the pass in some parts."""

    def closure():
        places.append(model.weight.tolist())
        clear(model, optimizer)
        for _ in range(num_parts):
            loss = model.weight @ model.weight / 2
            (loss / num_parts).backward()
        return loss

    return closure


@pytest.mark.parametrize("num_parts", [1, 2])
@pytest.mark.parametrize("clear", CLEARS.values(), ids=CLEARS)
@pytest.mark.parametrize("before", BEFORE)
def test_a_closure_that_clears_is_called_at_w_and_at_w_plus_eps_whatever_was_before(before, clear, num_parts):
    model, optimizer = make()
    before(model, optimizer)
    places = []
    loss = optimizer.step(closure_of(model, optimizer, clear, places, num_parts))
    assert places == [[3.0, 4.0], [6.0, 8.0]]
    assert model.weight.tolist() == [-3.0, -4.0]
    assert loss.item() == 50
    assert all(weight.grad is None for weight in model.parameters())
    optimizer.step(closure_of(model, optimizer, clear, places, num_parts))
    assert model.weight.tolist() == [3.0, 4.0], "and again, from there"


@pytest.mark.parametrize("before", BEFORE)
def test_gradients_that_the_closure_does_not_clear_are_an_error_that_changes_nothing(before):
    model, optimizer = make()
    before(model, optimizer)
    grads = [None if weight.grad is None else weight.grad.clone() for weight in model.parameters()]
    places = []
    closure = closure_of(model, optimizer, nothing, places)
    with contextlib.nullcontext() if before in CLEARED_BEFORE else pytest.raises(RuntimeError, match=KEPT):
        optimizer.step(closure)
    if before in CLEARED_BEFORE:
        assert model.weight.tolist() == [-3.0, -4.0]
        return
    assert (model.weight.tolist(), places) == ([3.0, 4.0], [[3.0, 4.0]])
    for weight, grad in zip(model.parameters(), grads):
        assert (weight.grad is None) == (grad is None)
        assert grad is None or torch.equal(weight.grad, grad)
    optimizer.zero_grad()  # the way out that the message names first
    optimizer.step(closure)
    assert model.weight.tolist() == [-3.0, -4.0]


def test_the_error_names_each_way_out():
    model, optimizer = make()
    left_by_another_player(model, optimizer)
    with pytest.raises(RuntimeError) as raised:
        optimizer.step(closure_of(model, optimizer, nothing, []))
    for way in ("call zero_grad() first", "step(closure, first_pass_done=True)", "let the closure make the"):
        assert way in str(raised.value)


def test_accumulation_over_micro_batches_outside_the_closure_is_an_error_and_inside_it_is_right():
    # As with accumulate_grad_batches of Lightning: the closure clears at the first micro-batch only.
    model, optimizer = make()
    halves = [closure_of(model, optimizer, nothing, []) for _ in range(2)]
    halves[0]()
    with pytest.raises(RuntimeError, match=KEPT):
        optimizer.step(halves[1])
    optimizer.zero_grad()
    optimizer.step(closure_of(model, optimizer, nothing, [], num_parts=2))
    assert model.weight.tolist() == [-3.0, -4.0]


def test_first_pass_done_takes_the_gradients_that_are_there():
    model, optimizer = make()
    places = []
    for clear in CLEARS.values():
        model.weight.data.copy_(torch.tensor([3.0, 4.0]))
        (model.weight @ model.weight / 2).backward()
        optimizer.step(closure_of(model, optimizer, clear, places), first_pass_done=True)
        assert model.weight.tolist() == [-3.0, -4.0]
    assert places == [[6.0, 8.0]] * len(CLEARS)
    with pytest.raises(RuntimeError, match="call backward\\(\\) before the first step"):
        optimizer.step(closure_of(model, optimizer, nothing, places), first_pass_done=True)


def test_a_closure_that_does_nothing_may_see_and_clip_the_gradient_of_the_update():
    # Lightning calls its hooks, such as on_before_optimizer_step, within a closure that makes no pass.
    model, optimizer = make()
    skipped_update(model, optimizer)

    def closure():
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        return model.weight.grad.tolist()

    seen = optimizer.step(closure)
    assert seen == pytest.approx([3.0, 4.0])
    assert model.weight.tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    optimizer.zero_grad()
    with pytest.raises(ValueError, match="SAM takes two passes"):
        optimizer.step()


def test_a_closure_that_makes_no_gradient_is_an_error():
    model, optimizer = make()
    with pytest.raises(RuntimeError, match="call backward\\(\\) before the first step"):
        optimizer.step(lambda: 1.0)
    assert model.weight.tolist() == [3.0, 4.0]


def test_a_closure_that_fails_leaves_the_gradients_of_before():
    model, optimizer = make()
    left_by_another_player(model, optimizer)
    with pytest.raises(MemoryError):
        optimizer.step(fails)
    assert model.weight.grad.tolist() == [-1.0, -1.0]

    def fails_after_backward():
        closure_of(model, optimizer, CLEARS["zeros"], [])()
        raise MemoryError

    with pytest.raises(MemoryError):
        optimizer.step(fails_after_backward)
    assert model.weight.grad is None, "half a pass is no gradient"


def test_step_with_a_closure_between_the_passes_is_refused_before_the_closure_is_called():
    model, optimizer = make()
    left_by_another_player(model, optimizer)
    optimizer.first_step()
    places = []
    with pytest.raises(RuntimeError, match="already perturbed"):
        optimizer.step(closure_of(model, optimizer, nothing, places))
    assert places == []


def test_a_base_step_that_fails_ends_the_update(monkeypatch):
    model, optimizer = make()
    monkeypatch.setattr(optimizer.base_optimizer, "step", fails)
    with pytest.raises(MemoryError):
        optimizer.step(closure_of(model, optimizer, nothing, []))
    monkeypatch.undo()
    optimizer.step(closure_of(model, optimizer, nothing, []))
    assert model.weight.tolist() == [-3.0, -4.0]


def test_no_hook_stays_on_the_weights():
    model, optimizer = make()
    left_by_another_player(model, optimizer)
    optimizer.step(closure_of(model, optimizer, CLEARS["zeros"], []))
    assert not model.weight._backward_hooks
