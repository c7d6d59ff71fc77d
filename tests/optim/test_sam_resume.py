"""What is saved of SAM, and copies of it, go on to the bits of the one that was left alone."""

import copy
import io
import pickle

import pytest
import torch

from sam.optim import SAM
from tests.optim.test_sam import SGD, loss_of, make_problem, two_passes, weights_of

BASES = [
    pytest.param(torch.optim.SGD, SGD, id="sgd"),
    pytest.param(torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.05}, id="adamw"),
]


def through_a_file(state):
    """Return what torch.load makes of what torch.save wrote."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def in_a_fresh_process(model, base, arguments, states):
    """Return a model of other weights and its SAM, after both have loaded the states."""
    fresh, *_ = make_problem(seed=7)
    fresh.to(next(model.parameters()).dtype)
    optimizer = SAM(fresh.parameters(), base, rho=0.9, **arguments)
    model_state, optimizer_state = through_a_file(states)
    fresh.load_state_dict(model_state)
    optimizer.load_state_dict(optimizer_state)
    return fresh, optimizer


def states_of(model, optimizer):
    return model.state_dict(), optimizer.state_dict()


def equal(model, other):
    return all(torch.equal(a, b) for a, b in zip(weights_of(model), weights_of(other)))


def assert_both_go_on_alike(one, other, inputs, targets):
    """Make three updates of each model with its optimizer, and compare bits."""
    for _ in range(3):
        for model, optimizer in (one, other):
            two_passes(optimizer, model, inputs, targets)
    assert equal(other[0], one[0])


@pytest.mark.parametrize(("base", "arguments"), BASES)
@pytest.mark.parametrize("stop_after", ["first_step", "second_backward", "second_step"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_run_that_stopped_after_either_pass_resumes_to_the_bit(base, arguments, stop_after, dtype):
    model, inputs, targets = make_problem()
    model.to(dtype)
    inputs = inputs.to(dtype)
    optimizer = SAM(model.parameters(), base, rho=0.3, **arguments)
    for _ in range(2):
        two_passes(optimizer, model, inputs, targets)
    loss_of(model, inputs, targets).backward()
    optimizer.first_step()
    if stop_after != "second_step":
        if stop_after == "second_backward":  # gradients are not saved: that pass is made again
            loss_of(model, inputs, targets).backward()
        resumed, loaded = in_a_fresh_process(model, base, arguments, states_of(model, optimizer))
        assert loaded.is_perturbed
        assert equal(resumed, model)
        optimizer.zero_grad()
        for one, its in ((model, optimizer), (resumed, loaded)):
            loss_of(one, inputs, targets).backward()
            its.second_step()
    else:
        loss_of(model, inputs, targets).backward()
        optimizer.second_step()
        resumed, loaded = in_a_fresh_process(model, base, arguments, states_of(model, optimizer))
    assert not loaded.is_perturbed
    assert equal(resumed, model)
    assert_both_go_on_alike((model, optimizer), (resumed, loaded), inputs, targets)


def test_a_state_between_the_passes_holds_perturbed_parameters_only_and_no_view_of_the_run():
    model, inputs, targets = make_problem()
    groups = [{"params": model[0].parameters(), "perturbed": False}, {"params": model[2].parameters()}]
    optimizer = SAM(groups, torch.optim.SGD, rho=0.3, **SGD)
    before = weights_of(model)
    loss_of(model, inputs, targets).backward()
    optimizer.first_step()
    saved = optimizer.state_dict()["sam"]["saved"]
    assert list(saved) == [2, 3]
    assert all(torch.equal(saved[number], before[number]) for number in saved)
    loss_of(model, inputs, targets).backward()
    optimizer.second_step()
    assert optimizer.state_dict()["sam"]["saved"] == {}


def test_a_loaded_state_is_a_copy():
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, **SGD)
    loss_of(model, inputs, targets).backward()
    optimizer.first_step()
    twin = copy.deepcopy(model)
    loaded = SAM(twin.parameters(), torch.optim.SGD, rho=0.3, **SGD)
    loaded.load_state_dict(optimizer.state_dict())
    two = list(zip(optimizer._saved.last, loaded._saved.last))
    assert all(a.data_ptr() != b.data_ptr() and torch.equal(a, b) for a, b in two)
    assert optimizer._between.num_not_finite.data_ptr() != loaded._between.num_not_finite.data_ptr()


@pytest.mark.parametrize(("base", "arguments"), BASES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("is_perturbed", [False, True])
@pytest.mark.parametrize("has_scheduler", [False, True])
def test_a_copy_goes_on_to_the_same_bits(base, arguments, copied, is_perturbed, has_scheduler):
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), base, rho=0.3, **arguments)
    if has_scheduler:  # it wraps optimizer.step, a bound method of the original
        torch.optim.lr_scheduler.StepLR(optimizer, 1)
    two_passes(optimizer, model, inputs, targets)
    if is_perturbed:
        loss_of(model, inputs, targets).backward()
        optimizer.first_step()
    twin, twin_optimizer = copied((model, optimizer))
    assert twin_optimizer.is_perturbed == is_perturbed
    assert twin_optimizer.param_groups is twin_optimizer.base_optimizer.param_groups
    assert twin_optimizer.state is twin_optimizer.base_optimizer.state
    assert all(a is b for a, b in zip(twin_optimizer.param_groups[0]["params"], twin.parameters()))
    before = weights_of(model)
    for one, its in ((twin, twin_optimizer), (model, optimizer)):
        if is_perturbed:
            loss_of(one, inputs, targets).backward()
            its.second_step()
        for _ in range(2):
            two_passes(its, one, inputs, targets)
        if one is twin:
            assert all(torch.equal(new, old) for new, old in zip(weights_of(model), before))
    assert equal(twin, model)


@pytest.mark.parametrize(("base", "arguments"), BASES)
def test_the_state_of_a_base_optimizer_alone_is_loaded(base, arguments):
    model, inputs, targets = make_problem()
    plain = base(model.parameters(), **arguments)
    for _ in range(3):
        plain.zero_grad()
        loss_of(model, inputs, targets).backward()
        plain.step()
    plain.param_groups[0]["lr"] = 0.003
    states = model.state_dict(), plain.state_dict()
    assert "rho" not in states[1]["param_groups"][0]
    resumed, loaded = in_a_fresh_process(model, base, arguments, states)
    group = loaded.param_groups[0]
    assert (group["rho"], group["adaptive"], group["perturbed"], group["lr"]) == (0.9, False, True, 0.003)
    assert loaded.param_groups is loaded.base_optimizer.param_groups
    model.zero_grad()
    around = SAM(model.parameters(), plain, rho=0.9)
    assert_both_go_on_alike((model, around), (resumed, loaded), inputs, targets)


def test_a_state_of_an_older_sam_is_loaded():
    # Up to commit 709ef3a it was the base optimizer's, with rho and adaptive in its groups and no more.
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, **SGD)
    two_passes(optimizer, model, inputs, targets)
    state = optimizer.base_optimizer.state_dict()
    for group in state["param_groups"]:
        del group["perturbed"]
    resumed, loaded = in_a_fresh_process(model, torch.optim.SGD, SGD, (model.state_dict(), state))
    assert (loaded.param_groups[0]["rho"], loaded.param_groups[0]["perturbed"]) == (0.3, True)
    assert_both_go_on_alike((model, optimizer), (resumed, loaded), inputs, targets)


def test_loading_between_the_passes_forgets_the_perturbation_of_before():
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, **SGD)
    two_passes(optimizer, model, inputs, targets)
    states = through_a_file(states_of(model, optimizer))
    saved = weights_of(model)
    loss_of(model, inputs, targets).backward()
    optimizer.first_step()
    model.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    assert not optimizer.is_perturbed
    with pytest.raises(RuntimeError, match="the weights are not perturbed"):
        optimizer.restore()
    assert all(torch.equal(new, old) for new, old in zip(weights_of(model), saved))
