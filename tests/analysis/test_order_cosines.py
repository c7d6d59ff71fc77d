"""Cosines between the updates of SAM with and without its second-order term, against autograd in float64."""

import copy

import pytest
import torch

from sam.analysis.order_cosines import order_cosines
from tests.training.test_second_order import second_order_update
from tests.training.updates import RHO, functional_loss, make_problem, make_update


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


def true_cosine(problem, rho, m):
    """The gradients of Eq. 3 and of L(w + eps(w)), over micro-batches of m, as autograd has them."""
    weights = [weight.detach().requires_grad_() for weight in problem.model.parameters()]
    first, second = [], []
    for images, targets in zip(problem.images.split(m), problem.targets.split(m), strict=True):
        loss = functional_loss(problem.model, images, targets)
        grads = torch.autograd.grad(loss(weights), weights, create_graph=True)
        moved = [w + rho * g / flat(grads).norm() for w, g in zip(weights, grads)]
        second.append(flat(torch.autograd.grad(loss(moved), weights, retain_graph=True)))
        apart = [weight.detach().requires_grad_() for weight in moved]
        first.append(flat(torch.autograd.grad(loss(apart), apart)))
    return torch.cosine_similarity(sum(first), sum(second), dim=0).item()


@pytest.mark.parametrize("m", [8, 4])
@pytest.mark.parametrize("rho", [RHO, 1e-6])
def test_order_cosines_are_those_of_the_gradients_by_autograd(rho, m):
    problem = make_problem()
    model = problem.model
    updates = (make_update(model, "sam", m=m, rho=rho), second_order_update(model, m=m, rho=rho))
    before = copy.deepcopy(list(model.parameters()))
    batches = [(problem.images, problem.targets)] * 2
    cosines = order_cosines(updates, list(model.parameters()), batches)
    assert cosines == pytest.approx([true_cosine(problem, rho, m)] * 2, rel=1e-9)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    # Without a perturbation there is no second-order term; with a large one it is seen.
    assert (1 - cosines[0] < 1e-4) == (rho < RHO)
