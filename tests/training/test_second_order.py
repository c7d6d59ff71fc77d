"""The gradient of L(w + eps(w)) against finite differences of that loss, and against the whole Hessian."""

import copy
import functools
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from sam.models.gates import Gate, ShakeDrop, ShakeShake, set_true_gradient
from sam.training.second_order import SecondOrderSAMRule
from sam.training.update import Update
from tests.reference import sam as reference
from tests.training.updates import (
    RHO,
    functional_loss,
    make_pass,
    make_problem,
    make_update,
    mean,
    micro_batch_gradients,
)

# One plain step, so that an update shows its gradient.
PLAIN = {"lr": 1.0}


class Gated(nn.Module):
    """A smooth small network with every layer whose second derivative might be missing."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, padding=1)
        self.second = nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.mix, self.drop = ShakeShake(), ShakeDrop(0.5)
        self.head = nn.Linear(2, 3)

    def forward(self, images):
        mixed = self.norm(self.mix(self.first(images).tanh(), self.second(images).sigmoid()))
        return self.head((mixed + self.drop(mixed.tanh())).mean((2, 3)))


def second_order_update(model, m=None, rho=RHO, precision="fp32", called=None, **arguments):
    rule_arguments = {key: arguments.pop(key) for key in ("true_gradient", "replay") if key in arguments}
    forward_backward = make_pass(model, precision, called, **arguments)
    optimizer = torch.optim.SGD(model.parameters(), **PLAIN)
    rule = SecondOrderSAMRule(forward_backward, optimizer, rho=rho, **rule_arguments)
    return Update(rule, forward_backward, m)


def gradient_of(update, model, images, targets):
    before = [weight.detach().clone() for weight in model.parameters()]
    update(images, targets, lr=1.0)
    return [old - weight.detach() for old, weight in zip(before, model.parameters())]


@pytest.fixture
def small():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()
    return model, torch.randn(8, 4, dtype=torch.float64), torch.randint(0, 3, (8,))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_gradient_equals_central_differences_of_the_perturbed_loss_through_all_layers(weight_decay):
    torch.manual_seed(0)
    model = Gated().double()
    images, targets = torch.randn(6, 2, 5, 5, dtype=torch.float64), torch.randint(0, 3, (6,))
    set_true_gradient(model, True)  # otherwise the gradient is on purpose not that of the loss
    twin = copy.deepcopy(model)
    plain = functional_loss(twin, images, targets)

    def loss(weights):
        torch.manual_seed(1)  # the same gates in every pass
        return reference.with_weight_decay(plain, weight_decay)(weights)

    def perturbed_loss(weights):
        eps = reference.perturbation(weights, reference.gradient(loss, weights), RHO)
        return loss(reference.moved(weights, eps)).item()

    update = second_order_update(model, weight_decay_in_loss=weight_decay)
    torch.manual_seed(1)
    gradient = gradient_of(update, model, images, targets)
    weights = [weight.detach().clone() for weight in twin.parameters()]
    step = 1e-5
    for weight, mine in zip(weights, gradient):
        flat, differences = weight.view(-1), torch.zeros(weight.numel(), dtype=torch.float64)
        for index in range(len(flat)):
            value = flat[index].item()
            flat[index] = value + step
            up = perturbed_loss(weights)
            flat[index] = value - step
            differences[index] = (up - perturbed_loss(weights)) / (2 * step)
            flat[index] = value
        # step^2 times a third derivative, and round-off / step
        torch.testing.assert_close(mine.view(-1), differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("m", [None, 4])
def test_update_equals_mean_of_gradients_from_the_whole_hessian(small, m, weight_decay):
    model, images, targets = small
    gradient = functools.partial(reference.second_order_gradient, rho=RHO)
    parts, statistics = micro_batch_gradients(
        model, gradient, images, targets, m or 8, label_smoothing=0.1, weight_decay=weight_decay
    )
    first_order = functools.partial(reference.sam_gradient, rho=RHO)
    dropped, _ = micro_batch_gradients(
        model, first_order, images, targets, m or 8, label_smoothing=0.1, weight_decay=weight_decay
    )
    update = second_order_update(model, m, label_smoothing=0.1, weight_decay_in_loss=weight_decay)
    found = gradient_of(update, model, images, targets)
    for mine, expected in zip(found, mean(parts)):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-11)
    difference = reference.norm([one - other for one, other in zip(found, mean(dropped))])
    assert difference > 0.05 * reference.norm(found), "the second-order term should be visible"
    for buffer, expected in zip(list(model.buffers())[:2], mean([kept[:2] for kept in statistics])):
        torch.testing.assert_close(buffer, expected, rtol=1e-10, atol=1e-12)
    assert int(model[1].num_batches_tracked) == 1


def test_sums_are_those_of_sam_without_the_cosine():
    problem = make_problem()
    twin = copy.deepcopy(problem.model)
    clean_targets = torch.zeros(8, dtype=torch.int64)
    ours, theirs = second_order_update(problem.model, m=4), make_update(twin, "sam", m=4)
    assert ours.rule.sums == theirs.rule.sums
    sums = [update(problem.images, problem.targets, 0.1, clean_targets) for update in (ours, theirs)]
    torch.testing.assert_close(*sums, rtol=1e-9, atol=1e-9)


def test_rho_zero_equals_the_plain_gradient(small):
    model, images, targets = small
    expected = reference.gradient(
        functional_loss(copy.deepcopy(model), images, targets), list(model.parameters())
    )
    for mine, plain in zip(
        gradient_of(second_order_update(model, rho=0.0), model, images, targets), expected
    ):
        torch.testing.assert_close(mine, plain, rtol=1e-12, atol=1e-14)


def test_zero_gradient_gives_zero_and_not_nan():
    model = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(model.weight)
    update = second_order_update(model)
    # Both classes are equally likely and equally often right, for the same image.
    gradient = gradient_of(update, model, torch.ones(2, 2), torch.tensor([0, 1]))
    assert torch.equal(gradient[0], torch.zeros(2, 2))


def test_weight_outside_the_forward_pass_and_a_frozen_one_stay():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3))
    model.unused = nn.Parameter(torch.ones(2))
    model.forward = lambda images: nn.Sequential.forward(model, images[:, :4])
    model.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    gradient = gradient_of(second_order_update(model), model, torch.randn(4, 4), torch.tensor([0, 1, 2, 0]))
    moved = {name: grad.abs().max() > 0 for (name, _), grad in zip(model.named_parameters(), gradient)}
    assert moved == {"unused": False, "frozen": False, "0.weight": True, "0.bias": True}


@pytest.mark.parametrize("replay", [True, False])
def test_passes_draw_the_same_numbers_if_told_to_and_the_first_has_the_true_gradient(replay):
    torch.manual_seed(0)
    model = Gated()
    drawn, modes = [], []

    def note(*_):
        drawn.append(torch.get_rng_state())
        modes.append({layer.true_gradient for layer in model.modules() if isinstance(layer, Gate)})

    model.register_forward_pre_hook(note)
    switch = functools.partial(set_true_gradient, model)
    update = second_order_update(model, m=2, true_gradient=switch, replay=replay)
    update(torch.randn(4, 2, 5, 5), torch.tensor([0, 1, 2, 0]), lr=0.1)
    assert [torch.equal(one, other) for one, other in zip(drawn[::2], drawn[1::2])] == [replay] * 2
    assert not torch.equal(drawn[0], drawn[2])
    assert modes == [{True}, {False}] * 2


def test_backward_of_a_gate_can_itself_be_differentiated():
    # y = a x, and going backward b in place of a: d(y^2)/dx is taken for 2 y b = 2 a b x, and its own
    # derivative passes through y once more, so it is taken for 2 b^2.
    images = torch.ones(1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    a, b = torch.full((1, 1, 1, 1), 0.25), torch.full((1, 1, 1, 1), 0.75)
    (first,) = torch.autograd.grad(Gate().scale(images, a, b).square().sum(), images, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), images)
    assert (first.item(), second.item()) == (2 * 0.25 * 0.75, 2 * 0.75**2)


def test_what_it_cannot_do_is_refused(small):
    model, *_ = small
    with pytest.raises(ValueError, match="rho must be finite and >= 0, got -1"):
        second_order_update(model, rho=-1)
    with pytest.raises(ValueError, match="cannot scale the loss; use precision fp32 instead of fp16"):
        second_order_update(model, precision="fp16")
    forward_backward = make_pass(model, unsynced=nullcontext)
    with pytest.raises(ValueError, match="runs in one process; start it without torchrun"):
        SecondOrderSAMRule(forward_backward, torch.optim.SGD(model.parameters(), **PLAIN), rho=RHO)
