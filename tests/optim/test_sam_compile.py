"""SAM under torch.compile: one graph where torch allows it."""

import copy

import pytest
import torch

from sam.optim import SAM
from tests.optim.test_sam import SGD, loss_of, make_problem, weights_of

BALLS = {"plain": {}, "adaptive": {"adaptive": True}, "p": {"p": 3.0}}


def compiled(function):
    return torch.compile(function, fullgraph=True, backend="eager")


@pytest.fixture(autouse=True)
def forget_graphs():
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("ball", BALLS)
def test_both_moves_are_one_graph_and_go_where_the_eager_ones_go(ball):
    model, inputs, targets = make_problem()
    twin = copy.deepcopy(model)
    optimizers = [SAM(m.parameters(), torch.optim.SGD, rho=0.3, **BALLS[ball], **SGD) for m in (model, twin)]
    moves = [(optimizer.perturb, optimizer.restore) for optimizer in optimizers]
    moves[0] = compiled(optimizers[0].perturb), compiled(optimizers[0].restore)
    for _ in range(3):
        for net, optimizer, (perturb, _) in zip((model, twin), optimizers, moves):
            loss_of(net, inputs, targets).backward()
            perturb()
            optimizer.zero_grad()
            loss_of(net, inputs, targets).backward()
        for weight, other in zip(weights_of(model), weights_of(twin)):
            torch.testing.assert_close(weight, other, rtol=1e-13, atol=1e-14)
        for optimizer, (_, restore) in zip(optimizers, moves):
            restore()
            optimizer.step()
            optimizer.zero_grad()


def test_a_gradient_that_is_not_finite_moves_nothing_also_when_compiled():
    model, inputs, targets = make_problem()
    before = weights_of(model)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1)
    loss_of(model, inputs, targets).backward()
    model[0].weight.grad[0, 0] = float("inf")
    compiled(optimizer.perturb)()
    assert all(map(torch.equal, weights_of(model), before))


def test_autograd_notices_the_compiled_moves():
    model, inputs, targets = make_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1)
    loss = loss_of(model, inputs, targets)
    loss.backward(retain_graph=True)
    compiled(optimizer.perturb)()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
