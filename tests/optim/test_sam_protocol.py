"""SAM as a torch optimizer among others: given base optimizers, schedulers, failures, calls out of order."""

import copy

import pytest
import torch
from schedulefree import SGDScheduleFree
from torch import nn
from torch.optim import lr_scheduler

from sam.optim import SAM
from tests.optim.test_sam import SGD, loss_of, make_problem, two_passes, weights_of

BASES = [
    pytest.param(torch.optim.SGD, SGD, id="sgd"),
    pytest.param(torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.05}, id="adamw"),
]


def equal(weights, others):
    return all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


def closure_of(model, inputs, targets):
    def closure():
        loss = loss_of(model, inputs, targets)
        loss.backward()
        return loss

    return closure


def by_closure(optimizer, model, inputs, targets):
    optimizer.step(closure_of(model, inputs, targets))


def by_context(optimizer, model, inputs, targets):
    loss_of(model, inputs, targets).backward()
    with optimizer.perturbed_weights():
        loss_of(model, inputs, targets).backward()
    optimizer.step()
    optimizer.zero_grad()


WAYS = [two_passes, by_closure, by_context]


@pytest.mark.parametrize(("base", "arguments"), BASES)
@pytest.mark.parametrize("way", WAYS)
def test_a_given_base_optimizer_goes_to_the_same_bits_as_a_class(base, arguments, way):
    model, inputs, targets = make_problem()
    twin = copy.deepcopy(model)
    given = base(model.parameters(), **arguments)
    optimizer = SAM(model.parameters(), given, rho=0.3)
    twin_optimizer = SAM(twin.parameters(), base, rho=0.3, **arguments)
    assert optimizer.base_optimizer is given
    assert optimizer.param_groups is given.param_groups and optimizer.state is given.state
    for _ in range(5):
        way(optimizer, model, inputs, targets)
        two_passes(twin_optimizer, twin, inputs, targets)
    assert equal(weights_of(model), weights_of(twin))


def test_a_given_base_optimizer_keeps_its_groups_its_state_and_its_scheduler():
    model, inputs, targets = make_problem()
    twin = copy.deepcopy(model)

    def two_groups(net):
        decayed = {"params": [net[0].weight, net[2].weight]}
        return [decayed, {"params": [net[0].bias, net[2].bias], "weight_decay": 0.0, "lr": 0.05}]

    given = torch.optim.SGD(two_groups(model), **SGD)
    scheduler = lr_scheduler.StepLR(given, 1, gamma=0.5)
    plain = torch.optim.SGD(two_groups(twin), **SGD)
    for one, its in ((model, given), (twin, plain)):
        loss_of(one, inputs, targets).backward()
        its.step()
        its.zero_grad()
    scheduler.step()
    optimizer = SAM((weight for weight in model.parameters()), given, rho=0.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.025]
    assert [group["rho"] for group in optimizer.param_groups] == [0.0, 0.0]
    for lrs in ([0.05, 0.025], [0.025, 0.0125]):
        for group, lr in zip(plain.param_groups, lrs):
            group["lr"] = lr
        loss_of(twin, inputs, targets).backward()
        plain.step()
        plain.zero_grad()
        two_passes(optimizer, model, inputs, targets)
        scheduler.step()
    assert equal(weights_of(model), weights_of(twin))


def test_a_given_base_optimizer_may_have_named_parameters():
    model, inputs, targets = make_problem()
    given = torch.optim.SGD(model.named_parameters(), lr=0.1)
    optimizer = SAM(model.named_parameters(), given, rho=0.3)
    two_passes(optimizer, model, inputs, targets)
    assert optimizer.param_groups[0]["param_names"] == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_a_given_base_optimizer_of_other_parameters_is_refused():
    model, *_ = make_problem()
    given = torch.optim.SGD(model.parameters(), lr=0.1)
    message = "params and the parameters of the base optimizer differ; give both the same"
    for params in (model[0].parameters(), [*model.parameters(), nn.Parameter(torch.ones(1))]):
        with pytest.raises(ValueError, match=message):
            SAM(params, given)
    with pytest.raises(ValueError, match="lr, momentum: the base optimizer already exists; set this when"):
        SAM(model.parameters(), given, lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match="params must be parameters, not groups, when base_optimizer is an"):
        SAM([{"params": model.parameters(), "rho": 0.1}], given)
    with pytest.raises(ValueError, match="rho must be finite and >= 0, got -1"):
        SAM(model.parameters(), given, rho=-1)


def warm_up_and_decay(optimizer):
    parts = [lr_scheduler.LinearLR(optimizer, 0.5, total_iters=2), lr_scheduler.ExponentialLR(optimizer, 0.5)]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[2])


SCHEDULERS = {
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 2, gamma=0.1),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 7),
    "one_cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=5),
    "plateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5),
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda num_steps: 1 / (1 + num_steps)),
    "sequential": warm_up_and_decay,
}


def advance(scheduler):
    scheduler.step(*([1.0] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))


@pytest.mark.parametrize(("base", "arguments"), BASES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["class", "given", "base"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_act_on_the_base_optimizer_without_a_warning(scheduler, place, way, base, arguments):
    model, inputs, targets = make_problem()
    plain = base(copy.deepcopy(model).parameters(), **arguments)
    if place == "class":
        optimizer = SAM(model.parameters(), base, rho=0.1, **arguments)
    else:
        optimizer = SAM(model.parameters(), base(model.parameters(), **arguments), rho=0.1)
    attached = SCHEDULERS[scheduler](optimizer.base_optimizer if place == "base" else optimizer)
    expected = SCHEDULERS[scheduler](plain)
    rates = []
    for _ in range(4):
        way(optimizer, model, inputs, targets)
        advance(attached)
        plain.step()
        advance(expected)
        rates.append(plain.param_groups[0]["lr"])
        for key in ("lr", "momentum", "betas"):
            found = optimizer.base_optimizer.param_groups[0].get(key)
            assert found == plain.param_groups[0].get(key)
    assert len(set(rates)) > 1, "the schedule should move"


def test_a_rho_that_the_groups_of_a_base_optimizer_have_stays():
    model, *_ = make_problem()
    given = torch.optim.SGD(model.parameters(), lr=0.1)
    given.param_groups[0]["rho"] = 0.1
    assert SAM(model.parameters(), given, rho=0.2).param_groups[0]["rho"] == 0.1


def test_a_base_optimizer_with_two_modes_is_switched_but_not_between_the_passes():
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), SGDScheduleFree, rho=0.1, lr=0.1)
    optimizer.train()
    for _ in range(2):  # after one step, both modes have the same weights
        two_passes(optimizer, model, inputs, targets)
    trained = weights_of(model)
    loss_of(model, inputs, targets).backward()
    optimizer.first_step()
    with pytest.raises(RuntimeError, match="already perturbed"):
        optimizer.eval()
    optimizer.restore()
    optimizer.eval()
    assert not any(map(torch.equal, weights_of(model), trained))
    assert optimizer.param_groups[0]["train_mode"] is False
    optimizer.train()
    assert optimizer.param_groups[0]["train_mode"] is True
    of_sgd = SAM(model.parameters(), torch.optim.SGD, lr=0.1)
    assert of_sgd.train() is of_sgd.eval() is None
