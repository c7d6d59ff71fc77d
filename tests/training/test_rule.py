"""Which passes SAM makes over one micro-batch: several steps uphill, random directions, the same draws."""

import pytest
import torch
from torch import nn

from sam.optim import SAM
from sam.training.rule import SAMRule
from sam.training.update import Update
from tests.reference import sam as reference
from tests.training.updates import RHO, SGD, functional_loss, make_pass, make_problem, make_update


class Dice(nn.Module):
    """Multiplies images by random numbers, and writes down what it drew and where it stood."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.drawn, self.modes, self.weights, self.true_gradient = [], [], [], False

    def set_true_gradient(self, flag):
        self.true_gradient = flag

    def forward(self, images):
        self.drawn.append(torch.rand(len(images), 1))
        self.modes.append(self.true_gradient)
        self.weights.append(torch.cat([w.detach().flatten().clone() for w in self.parameters()]))
        return self.linear(images * self.drawn[-1])


@pytest.fixture
def dice():
    torch.manual_seed(0)
    return Dice()


def sam_update(model, geometry=None, **rule):
    forward_backward = make_pass(model)
    sam = SAM(model.parameters(), torch.optim.SGD, rho=RHO, **(geometry or {}), **SGD)
    return Update(SAMRule(forward_backward, sam, **rule), forward_backward, m=2)


def update_twice(update):
    for _ in range(2):
        update(torch.randn(4, 4), torch.tensor([0, 1, 2, 0]), lr=0.1)


@pytest.mark.parametrize("ascent_steps", [1, 3])
@pytest.mark.parametrize("replay", [True, False])
def test_all_passes_draw_the_same_numbers_if_told_to_and_those_uphill_have_the_true_gradient(
    dice, replay, ascent_steps
):
    update = sam_update(dice, true_gradient=dice.set_true_gradient, replay=replay, ascent_steps=ascent_steps)
    update_twice(update)
    num_passes = ascent_steps + 1
    micro_batches = [dice.drawn[start : start + num_passes] for start in range(0, 4 * num_passes, num_passes)]
    assert len(dice.drawn) == 4 * num_passes
    for first, *others in micro_batches:
        assert all(torch.equal(first, other) == replay for other in others)
    firsts = torch.stack([first for first, *_ in micro_batches])
    assert len(firsts.unique()) == firsts.numel(), "the stream goes on from micro-batch to micro-batch"
    assert dice.modes == ([True] * ascent_steps + [False]) * 4


@pytest.mark.parametrize("replay", [True, False])
def test_random_direction_is_drawn_after_the_first_pass_and_not_drawn_again(dice, replay):
    update = sam_update(dice, {"random_direction": True}, replay=replay)
    images, targets = torch.randn(4, 4), torch.tensor([0, 1, 2, 0])
    for seed in (1, 2):
        torch.manual_seed(seed)
        update(images, targets, lr=0.1)
    passes = list(zip(dice.drawn, dice.weights))
    for number, (clean, perturbed) in enumerate(zip(passes[::2], passes[1::2])):
        if number % 2 == 0:
            torch.manual_seed(1 + number // 2)
        drawn = torch.rand(2, 1)
        direction = torch.cat([torch.randn_like(weight).flatten() for weight in dice.parameters()])
        assert torch.equal(clean[0], drawn)
        assert torch.equal(perturbed[0], drawn if replay else torch.rand(2, 1))
        move = RHO * direction / direction.norm()
        torch.testing.assert_close(perturbed[1] - clean[1], move, rtol=1e-5, atol=1e-6)


def test_random_direction_does_not_change_the_gradients_of_the_first_pass():
    problem = make_problem()
    update = make_update(problem.model, "sam", geometry={"random_direction": True})
    weights = [weight.detach().clone() for weight in problem.model.parameters()]
    grads = reference.gradient(functional_loss(problem.model, problem.images, problem.targets), weights)
    sums = dict(zip(update.rule.sums, update(problem.images, problem.targets, lr=0.1).tolist()))
    assert sums["grad_norm"] == pytest.approx(reference.norm(grads), rel=1e-9)
    assert (sums["num_perturbed"], sums["num_cosines"]) == (1, 0)


@pytest.mark.parametrize(
    "arguments", [{"geometry": {"p": 3.0}}, {"steps": {"ascent_steps": 2}}, {"geometry": {"adaptive": True}}]
)
def test_cosine_is_left_out_where_eps_is_not_a_multiple_of_the_first_gradient(arguments):
    problem = make_problem()
    update = make_update(problem.model, "sam", **arguments)
    sums = dict(zip(update.rule.sums, update(problem.images, problem.targets, lr=0.1).tolist()))
    assert (sums["cosine"], sums["num_cosines"]) == (0, 0)


def test_sums_of_several_ascent_steps_are_those_of_the_first_and_the_last_pass():
    problem = make_problem()
    loss = functional_loss(problem.model, problem.images, problem.targets)
    weights = [weight.detach().clone() for weight in problem.model.parameters()]
    eps = reference.climb(loss, weights, RHO, steps=3, step_size=1.0)
    first, last = loss(weights), loss(reference.moved(weights, eps))
    update = make_update(problem.model, "sam", steps={"ascent_steps": 3})
    sums = dict(zip(update.rule.sums, update(problem.images, problem.targets, lr=0.1).tolist()))
    assert sums["loss"] == pytest.approx(8 * first.item(), rel=1e-9)
    assert sums["perturbed_loss"] == pytest.approx(8 * last.item(), rel=1e-9)
    assert sums["grad_norm"] == pytest.approx(reference.norm(reference.gradient(loss, weights)), rel=1e-9)


@pytest.mark.parametrize("failing_call", [1, 2, 3, 4])
def test_weights_come_back_whichever_pass_fails(failing_call):
    problem = make_problem()
    model = problem.model
    update = make_update(model, "sam", steps={"ascent_steps": 3})
    before = [weight.detach().clone() for weight in model.parameters()]
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == failing_call:
            raise RuntimeError("out of memory")

    model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        update(problem.images, problem.targets, lr=0.1)
    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), before))


def test_fp16_overflow_in_a_later_ascent_pass_skips_the_update():
    problem = make_problem()
    model = problem.model.float()
    update = make_update(model, "sam", precision="fp16", steps={"ascent_steps": 2})
    climb = update.rule._sam.climb

    def overflow(step_size):
        next(model.parameters()).grad.fill_(torch.inf)
        return climb(step_size)

    update.rule._sam.climb = overflow
    before = [weight.detach().clone() for weight in model.parameters()]
    update(problem.images.float(), problem.targets, lr=0.1)
    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), before))


@pytest.mark.parametrize("num_steps", [0, -1])
def test_ascent_steps_out_of_range_are_refused(dice, num_steps):
    with pytest.raises(ValueError, match=f"ascent_steps must be at least 1, got {num_steps}"):
        sam_update(dice, ascent_steps=num_steps)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_ascent_step_size_out_of_range_is_refused(dice, size):
    with pytest.raises(ValueError, match="ascent_step_size must be finite and greater than 0, got"):
        sam_update(dice, ascent_step_size=size)
