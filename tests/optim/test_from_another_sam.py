"""Loops and states written for other SAMs, with the changes that docs/loops.md lists."""

import copy
from functools import partial

import pytest
import torch
from pytorch_optimizer import SAM as OtherSAM
from torch import nn

from sam import SAM
from tests.optim.test_sam import make_problem, two_passes, weights_of
from tests.optim.test_second_library import other_two_passes
from tests.reference import sam as reference

ARGUMENTS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
RHO, EPOCHS = 2.0, 5


def make_images(num_batches=2):
    images = torch.randn(num_batches, 12, 3, 8, 8, dtype=torch.float64)
    return [(batch, batch.mean(dim=(2, 3)).argmax(dim=1)) for batch in images]


def make_net():
    body = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, 4, 3), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(64, 3)).double()


def one_pass(model, inputs, targets):
    loss = nn.functional.cross_entropy(model(inputs), targets, label_smoothing=0.1)
    loss.backward()
    return loss


def set_statistics(model, kept):
    """Switch the running statistics of batch norm on or off, by its momentum, as such loops do."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1 if kept else 0.0


def rate(epoch):
    return ARGUMENTS["lr"] * 0.2 ** sum(epoch >= EPOCHS * share for share in (0.3, 0.6, 0.8))


def train(model, batches, in_two_steps):
    """The CIFAR loop of davda54/sam, or its form with a closure."""
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=RHO, adaptive=True, **ARGUMENTS)
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = rate(epoch)
        for inputs, targets in batches:
            set_statistics(model, kept=True)
            one_pass(model, inputs, targets)
            if in_two_steps:
                optimizer.first_step(zero_grad=True)
                set_statistics(model, kept=False)
                one_pass(model, inputs, targets)
                optimizer.second_step(zero_grad=True)
            else:
                set_statistics(model, kept=False)
                optimizer.step(partial(one_pass, model, inputs, targets), first_pass_done=True)
                optimizer.zero_grad()


@pytest.mark.parametrize("in_two_steps", [True, False])
def test_the_cifar_loop_of_davda54_equals_the_formula(in_two_steps):
    torch.manual_seed(0)
    model, batches = make_net(), make_images()
    clean, start, expected = copy.deepcopy(model), weights_of(model), weights_of(model)
    names = [name for name, _ in model.named_parameters()]

    def loss(inputs, targets, weights):
        called = torch.func.functional_call(copy.deepcopy(clean), dict(zip(names, weights)), (inputs,))
        return nn.functional.cross_entropy(called, targets, label_smoothing=0.1)

    base = reference.Sgd(**ARGUMENTS)
    for epoch in range(EPOCHS):
        for inputs, targets in batches:
            with torch.no_grad():
                torch.func.functional_call(clean, dict(zip(names, expected)), (inputs,))  # its statistics
            grads = reference.sam_gradient(partial(loss, inputs, targets), expected, RHO, adaptive=True)
            expected = base.step(expected, grads, rate(epoch))
    train(model, batches, in_two_steps)
    for weight, target in zip(weights_of(model), expected):
        torch.testing.assert_close(weight, target, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(model[1].running_var, clean[1].running_var, rtol=1e-9, atol=1e-10)
    assert max((a - b).abs().max() for a, b in zip(expected, start)) > 0.1, "it should lead somewhere"


def test_training_goes_on_from_the_state_of_another_sam():
    model, inputs, targets = make_problem()
    other = OtherSAM(model.parameters(), torch.optim.SGD, rho=0.3, **ARGUMENTS)
    for _ in range(3):
        other_two_passes(other, model, inputs, targets)
    copied = copy.deepcopy(model)
    optimizer = SAM(copied.parameters(), torch.optim.SGD, rho=0.1, lr=1.0)
    optimizer.load_state_dict(copy.deepcopy(other.base_optimizer.state_dict()))
    for _ in range(3):
        other_two_passes(other, model, inputs, targets)
        two_passes(optimizer, copied, inputs, targets)
    for weight, expected in zip(weights_of(copied), weights_of(model)):
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-6)  # its norm is in float32
