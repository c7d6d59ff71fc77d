"""maximize=True: minimising f and maximising -f are the same run, to the bit."""

import copy
import math

import pytest
import torch
from torch import nn

from sam.optim import SAM
from tests.optim.test_sam import SGD, make_problem, weights_of
from tests.optim.test_sam import loss_of as loss_of_problem

BALLS = {
    "p=2": {},
    "p=3": {"p": 3.0},
    "p=inf": {"p": math.inf},
    "adaptive": {"adaptive": True},
    "random": {"random_direction": True},
}
BASES = [(torch.optim.SGD, SGD), (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.05})]


def twins(base, arguments, ball, maximized):
    """Return two times the same model and SAM; the second one maximises in the groups of these numbers."""
    model, inputs, targets = make_problem()
    pairs = []
    for numbers in ((), maximized):
        net = copy.deepcopy(model)
        groups = [{"params": layer.parameters()} for layer in (net[0], net[2])]
        for number in numbers:
            groups[number]["maximize"] = True
        pairs.append((net, SAM(groups, base, rho=0.3, **arguments, **ball)))
    return pairs, inputs, targets


def backward(model, optimizer, inputs, targets):
    """Add the gradients of f; in groups that maximise, those of -f."""
    loss_of_problem(model, inputs, targets).backward()
    for group in optimizer.param_groups:
        for weight in group["params"] if group["maximize"] else ():
            weight.grad.neg_()


def equal(model, other):
    return all(torch.equal(a, b) for a, b in zip(weights_of(model), weights_of(other), strict=True))


@pytest.mark.parametrize("maximized", [(0, 1), (1,)], ids=["all", "one group"])
@pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
@pytest.mark.parametrize(("base", "arguments"), BASES, ids=["sgd", "adamw"])
def test_to_maximise_minus_f_is_to_minimise_f(base, arguments, ball, maximized):
    pairs, inputs, targets = twins(base, arguments, ball, maximized)
    for _ in range(3):
        torch.manual_seed(1)
        draws = torch.get_rng_state()
        norms, cosines = [], []
        for model, optimizer in pairs:
            torch.set_rng_state(draws)
            backward(model, optimizer, inputs, targets)
            norms.append(optimizer.perturb())
            optimizer.zero_grad()
            backward(model, optimizer, inputs, targets)
        assert equal(pairs[0][0], pairs[1][0]), "at w + eps"
        for _, optimizer in pairs:
            cosines.append(optimizer.restore_and_compare())
            optimizer.step()
            optimizer.zero_grad()
        assert equal(pairs[0][0], pairs[1][0]), "after the update"
        assert torch.equal(*norms) and torch.equal(*cosines)


@pytest.mark.parametrize("maximized", [(0, 1), (0,)], ids=["all", "one group"])
def test_climb_goes_to_the_same_place(maximized):
    pairs, inputs, targets = twins(torch.optim.SGD, SGD, {}, maximized)
    for model, optimizer in pairs:
        backward(model, optimizer, inputs, targets)
        optimizer.first_step()
        for _ in range(2):
            optimizer.zero_grad()
            backward(model, optimizer, inputs, targets)
            optimizer.climb(0.6)
    assert equal(pairs[0][0], pairs[1][0])


def test_eps_lowers_a_loss_that_is_maximised():
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = SAM([weight], torch.optim.SGD, rho=5.0, lr=1.0, maximize=True)
    (-(weight @ weight) / 2).backward()
    optimizer.first_step()
    assert weight.tolist() == [6.0, 8.0]
    (-(weight @ weight) / 2).backward()
    optimizer.second_step()
    assert weight.tolist() == [-3.0, -4.0]
