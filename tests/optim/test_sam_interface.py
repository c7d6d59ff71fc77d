"""The public surface of torch.optim.Optimizer, method by method, and what SAM refuses."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sam.optim import SAM
from tests.optim.test_sam import SGD, loss_of, make_problem, two_passes, weights_of


def make(rho=0.3, **arguments):
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=rho, **SGD, **arguments)
    return model, optimizer, inputs, targets


def equal(model, other):
    return all(torch.equal(a, b) for a, b in zip(weights_of(model), weights_of(other), strict=True))


# Hooks


def test_hooks_of_state_dict_are_called_with_sam_and_may_change_the_state():
    _, optimizer, *_ = make()
    calls = []
    optimizer.base_optimizer.register_state_dict_pre_hook(lambda one: calls.append(("base", one)))
    optimizer.register_state_dict_pre_hook(lambda one: calls.append(("before", one)))
    optimizer.register_state_dict_post_hook(lambda one, state: {**state, "note": "sam" in state})
    optimizer.register_state_dict_post_hook(lambda one, state: calls.append(("after", state["note"])))
    assert optimizer.state_dict()["note"] is True
    assert calls == [("before", optimizer), ("base", optimizer.base_optimizer), ("after", True)]


def test_hooks_of_load_state_dict_are_called_with_sam_and_may_change_the_state():
    model, optimizer, inputs, targets = make()
    two_passes(optimizer, model, inputs, targets)
    state = optimizer.state_dict()
    _, loaded, *_ = make(rho=0.1)
    seen = []

    def change(one, given):
        assert given is not state and one is loaded
        del given["note"]
        given["param_groups"] = [{**given["param_groups"][0], "rho": 0.7}]

    loaded.register_load_state_dict_pre_hook(change)
    loaded.register_load_state_dict_pre_hook(
        lambda one, given: given | {"sam": {**given["sam"], "saved": {}}}
    )
    loaded.register_load_state_dict_post_hook(lambda one: seen.append(one.param_groups[0]["rho"]))
    state["note"] = "for the hook"
    loaded.load_state_dict(state)
    assert seen == [0.7]
    assert state["note"] == "for the hook" and state["param_groups"][0]["rho"] == 0.3


def test_copies_have_no_hooks_as_those_of_torch():
    model, optimizer, inputs, targets = make()
    for register in ("register_step_pre_hook", "register_step_post_hook", "register_state_dict_pre_hook"):
        getattr(optimizer, register)(lambda *_: 1 / 0)
    for copied in (copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))):
        twin, twin_optimizer = copied((model, optimizer))
        two_passes(twin_optimizer, twin, inputs, targets)
        twin_optimizer.state_dict()
        twin_optimizer.register_step_pre_hook(lambda *_: None)


# Groups and state, whoever changes them


def test_groups_that_are_assigned_are_those_of_the_base_optimizer():
    model, optimizer, inputs, targets = make()
    optimizer.param_groups = [
        {**optimizer.param_groups[0], "params": list(model[2].parameters()), "lr": 0.01}
    ]
    assert optimizer.base_optimizer.param_groups is optimizer.param_groups
    before = weights_of(model)
    two_passes(optimizer, model, inputs, targets)
    changed = [not torch.equal(new, old) for new, old in zip(weights_of(model), before)]
    assert changed == [False, False, True, True]


def test_state_that_is_assigned_is_that_of_the_base_optimizer():
    model, optimizer, inputs, targets = make()
    two_passes(optimizer, model, inputs, targets)
    optimizer.state = type(optimizer.state)(dict)
    assert optimizer.base_optimizer.state is optimizer.state
    assert not optimizer.state_dict()["state"]


def test_a_group_that_the_base_optimizer_adds_takes_part_with_the_settings_of_sam():
    model, inputs, targets = make_problem()
    twin = copy.deepcopy(model)
    one = SAM(model[2].parameters(), torch.optim.SGD, rho=0.3, lr=0.1)
    other = SAM(twin[2].parameters(), torch.optim.SGD, rho=0.3, lr=0.1)
    one.base_optimizer.add_param_group({"params": model[0].parameters()})
    other.add_param_group({"params": twin[0].parameters()})
    two_passes(one, model, inputs, targets)
    two_passes(other, twin, inputs, targets)
    assert equal(model, twin)
    assert one.param_groups[1]["rho"] == 0.3
    one.base_optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert one.follows_gradient


def test_a_state_that_the_base_optimizer_loads_is_that_of_sam():
    model, optimizer, inputs, targets = make()
    two_passes(optimizer, model, inputs, targets)
    twin = copy.deepcopy(model)
    loaded = SAM(twin.parameters(), torch.optim.SGD, rho=0.3, **SGD)
    loaded.base_optimizer.load_state_dict(copy.deepcopy(optimizer.base_optimizer.state_dict()))
    assert loaded.param_groups is loaded.base_optimizer.param_groups
    assert loaded.state is loaded.base_optimizer.state
    for _ in range(2):
        two_passes(optimizer, model, inputs, targets)
        two_passes(loaded, twin, inputs, targets)
    assert equal(model, twin)


def test_repr_names_the_settings():
    _, optimizer, *_ = make()
    assert repr(optimizer).startswith("SAM (") and "rho: 0.3" in repr(optimizer)


# Settings


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf")])
def test_a_rho_that_leaves_its_range_later_is_refused_before_anything_moves(rho):
    model, optimizer, inputs, targets = make()
    before = weights_of(model)
    loss_of(model, inputs, targets).backward()
    optimizer.param_groups[0]["rho"] = rho
    with pytest.raises(ValueError, match="rho must be finite and >= 0, got"):
        optimizer.first_step()
    optimizer.param_groups[0]["rho"] = 0.3
    optimizer.first_step()
    optimizer.param_groups[0]["rho"] = rho
    loss_of(model, inputs, targets).backward()
    with pytest.raises(ValueError, match="rho must be finite and >= 0, got"):
        optimizer.climb()
    optimizer.restore()
    assert all(torch.equal(new, old) for new, old in zip(weights_of(model), before))


@pytest.mark.parametrize("rho", ["0.05", None, [0.05], 1j])
def test_a_rho_that_is_no_number_is_refused(rho):
    with pytest.raises(TypeError, match="rho must be a number, got "):
        make(rho=rho)
    _, optimizer, *_ = make()
    with pytest.raises(TypeError, match="rho must be a number, got "):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "rho": rho})
    assert len(optimizer.param_groups) == 1


def test_a_tensor_as_rho_is_refused_and_numbers_of_numpy_are_taken():
    with pytest.raises(TypeError, match="rho must be a number, got a tensor; use float\\(rho\\)"):
        make(rho=torch.tensor(0.05))
    for rho in (np.float32(0.25), np.float64(0.25), np.int64(1), 1):
        model, optimizer, inputs, targets = make(rho=rho)
        two_passes(optimizer, model, inputs, targets)
    with pytest.raises(TypeError, match="p must be a number, got '2'"):
        make(p="2")


@pytest.mark.parametrize("step_size", [0.0, -1.0, float("nan"), float("inf")])
def test_a_step_size_of_climb_out_of_range_is_refused(step_size):
    _, optimizer, *_ = make()
    with pytest.raises(ValueError, match="step_size must be finite and > 0, got"):
        optimizer.climb(step_size)
    with pytest.raises(TypeError, match="step_size must be a number, got a tensor"):
        optimizer.climb(torch.tensor(step_size))


def test_adaptive_that_is_set_later_is_checked_too():
    model, optimizer, inputs, targets = make(p=3.0)
    optimizer.param_groups[0]["adaptive"] = True
    loss_of(model, inputs, targets).backward()
    with pytest.raises(ValueError, match="adaptive=True needs p=2"):
        optimizer.first_step()


def test_groups_none_of_which_is_perturbed_are_an_error_that_says_so():
    model, inputs, targets = make_problem()
    optimizer = SAM([{"params": model.parameters(), "perturbed": False}], torch.optim.SGD, lr=0.1)
    loss_of(model, inputs, targets).backward()
    with pytest.raises(ValueError, match="no parameter group has perturbed=True"):
        optimizer.first_step()


# Base optimizers and parameters that do not fit


def test_a_base_optimizer_with_a_rho_of_its_own_is_refused():
    weights = [nn.Parameter(torch.ones(2))]
    for base, arguments in ((torch.optim.Adadelta, {"lr": 1.0}), (torch.optim.Adadelta(weights), {})):
        with pytest.raises(ValueError, match="Adadelta has a setting of its own with the name 'rho'"):
            SAM(weights, base, **arguments)
    inner = SAM(weights, torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="SAM has a setting of its own with the name"):
        SAM(weights, inner)


def test_a_base_optimizer_with_an_argument_that_sam_has_too_is_given_as_an_optimizer():
    class Powered(torch.optim.SGD):
        def __init__(self, params, lr, p=2.0):
            super().__init__(params, lr)
            self.p = p

    weights = [nn.Parameter(torch.ones(2))]
    with pytest.raises(ValueError, match="Powered has an argument with the name 'p', and so has SAM; create"):
        SAM(weights, Powered, lr=0.1, p=3.0)
    assert SAM(weights, Powered(weights, 0.1, p=3.0)).base_optimizer.p == 3.0


def test_a_base_optimizer_that_needs_a_closure_is_refused():
    class NeedsLoss(torch.optim.SGD):
        def step(self, loss):
            raise AssertionError

    weights = [nn.Parameter(torch.ones(2))]
    for base in (torch.optim.LBFGS, NeedsLoss):
        for given, arguments in ((base, {"lr": 0.1}), (base(weights, lr=0.1), {})):
            with pytest.raises(TypeError, match=f"{base.__name__}.step\\(\\) needs a closure"):
                SAM(weights, given, **arguments)


def sparse():
    return nn.Parameter(torch.eye(2).to_sparse())


def complex_numbers():
    return nn.Parameter(torch.ones(2, dtype=torch.complex64))


@pytest.mark.parametrize(("make_weight", "kind"), [(sparse, "sparse"), (complex_numbers, "complex")])
def test_complex_and_sparse_parameters_are_refused_unless_they_are_not_perturbed(make_weight, kind):
    message = f"SAM perturbs real and dense parameters, got a {kind} one"
    dense, weight = nn.Parameter(torch.ones(2)), make_weight()
    for params in ([dense, weight], [("one", dense), ("other", weight)]):
        with pytest.raises(TypeError, match=message):
            SAM(params, torch.optim.SGD, lr=0.1)
    optimizer = SAM([dense], torch.optim.SGD, lr=0.1)
    with pytest.raises(TypeError, match=message):
        optimizer.add_param_group({"params": weight})
    assert len(optimizer.param_groups) == 1
    optimizer.base_optimizer.add_param_group({"params": [weight]})
    dense.grad = torch.ones(2)
    with pytest.raises(TypeError, match=message):
        optimizer.first_step()
    SAM([{"params": dense}, {"params": weight, "perturbed": False}], torch.optim.SGD, lr=0.1)


def test_sparse_gradients_are_refused_unless_their_group_is_not_perturbed():
    model = nn.Sequential(nn.Embedding(5, 2, sparse=True), nn.Linear(2, 1))
    words = torch.tensor([1, 3])
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.1)
    before = weights_of(model)
    model(words).sum().backward()
    with pytest.raises(TypeError, match="SAM perturbs along dense gradients, got a sparse one"):
        optimizer.first_step()
    assert all(torch.equal(new, old) for new, old in zip(weights_of(model), before))
    groups = [{"params": model[0].parameters(), "perturbed": False}, {"params": model[1].parameters()}]
    optimizer = SAM(groups, torch.optim.SGD, lr=0.1)
    model.zero_grad()
    for step in (optimizer.first_step, optimizer.second_step):
        model(words).sum().backward()
        step()
    changed = (model[0].weight.detach() != before[0]).any(dim=1)
    assert changed.tolist() == [False, True, False, True, False]
