"""Cheaper rules against the definitions of their papers, over eight updates in float64.

Longer than 300 lines, since it lists all rules and their combinations.
"""

import copy

import pytest
import torch
from torch import nn

from sam.build import update as build_update
from sam.build.resolved import resolve
from sam.optim.schedule import Ascents
from tests.conftest import changed
from tests.reference import sam as reference
from tests.reference.cheaper import Cheaper, mean, num_ascent_images
from tests.training.updates import RHO, SGD, functional_loss, make_problem, make_update

NUM_STEPS = 8
SMOOTHING = 0.1


class Oracle:
    """Weights and running statistics of a run, and the sums of each update, worked out one by one.

    Each micro-batch starts from the same statistics and moves them by the images of its clean pass; their
    mean is kept.
    """

    def __init__(self, model, m, share="1", weight_decay=0.0, base=SGD, clip_norm=0.5, rho=RHO, **rule):
        self.model, self.m, self.share, self.weight_decay = copy.deepcopy(model), m, share, weight_decay
        self.rule = Cheaper(rho, NUM_STEPS, **rule)
        self.base, self.clip_norm = reference.Sgd(**base), clip_norm

    @property
    def weights(self):
        return [weight.detach().clone() for weight in self.model.parameters()]

    def loss(self, images, targets):
        loss = functional_loss(copy.deepcopy(self.model), images, targets, SMOOTHING)
        return reference.with_weight_decay(loss, self.weight_decay) if self.weight_decay else loss

    def update(self, step, images, targets, lr):
        """Take one step; return the sums that the rule should report."""
        parts = list(zip(images.split(self.m), targets.split(self.m)))
        uphill = step in self.rule.ascents
        num_seen = num_ascent_images(self.share, self.m) if uphill else self.m
        seen = [(part[:num_seen], labels[:num_seen]) for part, labels in parts]
        micro_batches = [(self.loss(*some), self.loss(*part)) for some, part in zip(seen, parts)]
        sums = self.sums(micro_batches, seen, parts, uphill)
        gradient = self.rule.gradient(step, micro_batches, self.weights)
        moved = self.base.step(self.weights, reference.clip(gradient, self.clip_norm), lr)
        self.move_statistics([images for images, _ in seen])
        with torch.no_grad():
            torch._foreach_copy_(list(self.model.parameters()), moved)
        return sums

    def loss_and_errors(self, images, targets, moves=None):
        """Return the sum of the losses, without decay, and the number of errors, at w or w + eps."""
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            if moves is not None:
                torch._foreach_add_(list(model.parameters()), moves)
            logits = model(images)
        loss = nn.functional.cross_entropy(logits, targets, label_smoothing=SMOOTHING, reduction="sum")
        return torch.tensor([float(loss), int((logits.argmax(1) != targets).sum())], dtype=torch.float64)

    def sums(self, micro_batches, seen, parts, uphill):
        num_seen, num_parts = len(seen[0][1]), len(parts)
        clean = sum(self.loss_and_errors(*some) for some in seen)
        perturbed = torch.zeros(2)
        for (ascent_loss, _), part in zip(micro_batches, parts if uphill else []):
            perturbed = perturbed + self.loss_and_errors(*part, self.rule.eps(ascent_loss, self.weights))
        return {
            **dict(zip(("loss", "errors"), clean.tolist())),
            **dict(zip(("perturbed_loss", "perturbed_errors"), perturbed.tolist())),
            "num_images": num_seen * num_parts,
            "image_passes": (num_seen * self.rule.ascent_steps * uphill + self.m) * num_parts,
            "num_perturbed_images": self.m * num_parts * uphill,
            "num_perturbed": num_parts * uphill,
            "num_unperturbed": 0,
        }

    def move_statistics(self, seen):
        moved = []
        for images in seen:
            twin = copy.deepcopy(self.model)
            twin(images)
            moved.append([buffer.double() for buffer in twin.buffers()])
        for buffer, value in zip(self.model.buffers(), mean(moved)):
            buffer.copy_(value)


def assert_same(update, model, oracle, problem):
    """Run both over all updates, and compare weights, statistics and sums after each."""
    for step in range(NUM_STEPS):
        lr = 0.1 / (step + 1)
        expected = oracle.update(step, problem.images, problem.targets, lr)
        found = update(problem.images, problem.targets, lr, step=step)
        found = dict(zip(update.rule.sums, found.tolist()))
        assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-9, abs=1e-10)
        for weight, target in zip(model.parameters(), oracle.model.parameters()):
            # float64 round-off through eight convolutions, grown over the updates
            torch.testing.assert_close(weight, target, rtol=1e-9, atol=1e-10)
        for buffer, target in zip(model.buffers(), oracle.model.buffers()):
            torch.testing.assert_close(buffer, target, rtol=1e-9, atol=1e-11)


def ascents(start, stop, interval=1):
    return Ascents.between(float(start), float(stop), NUM_STEPS, interval)


# Arguments of make_update, and the same for the oracle.
CASES = {
    **{
        f"ascent on a share of {share}": ({"steps": {"ascent_fraction": float(share)}}, {"share": share})
        for share in ("0.25", "0.4", "0.01", "1")
    },
    "two ascent steps on a half": (
        {"steps": {"ascent_steps": 2, "ascent_fraction": 0.5}},
        {"ascent_steps": 2, "share": "0.5"},
    ),
    "three ascent steps": ({"steps": {"ascent_steps": 3}}, {"ascent_steps": 3}),
    "every third": ({"steps": {"ascents": Ascents(0, NUM_STEPS, 3)}}, {"interval": 3}),
    "the middle": ({"steps": {"ascents": ascents("0.25", "0.75")}}, {"start": "0.25", "stop": "0.75"}),
    "every second of the middle": (
        {"steps": {"ascents": ascents("0.3", "0.9", 2)}},
        {"start": "0.3", "stop": "0.9", "interval": 2},
    ),
    "ascent on a quarter, every second": (
        {"steps": {"ascent_fraction": 0.25, "ascents": ascents("0", "1", 2)}},
        {"share": "0.25", "interval": 2},
    ),
    "LookSAM": ({"steps": {"ascents": ascents("0", "1", 3)}, "reuse": 0.7}, {"interval": 3, "alpha": 0.7}),
    "LookSAM in the middle": (
        {"steps": {"ascents": ascents("0.2", "0.8", 2)}, "reuse": 1.5},
        {"start": "0.2", "stop": "0.8", "interval": 2, "alpha": 1.5},
    ),
    "LookSAM of two ascent steps": (
        {"steps": {"ascents": ascents("0", "1", 3), "ascent_steps": 2}, "reuse": 0.7},
        {"interval": 3, "alpha": 0.7, "ascent_steps": 2},
    ),
    "LookSAM with decay in the loss": (
        {"steps": {"ascents": ascents("0", "1", 3)}, "reuse": 0.7, "weight_decay_in_loss": 0.1},
        {"interval": 3, "alpha": 0.7, "weight_decay": 0.1},
    ),
}


@pytest.mark.parametrize("m", [None, 4])
@pytest.mark.parametrize("case", CASES)
def test_rule_equals_its_definition(case, m):
    arguments, definition = CASES[case]
    problem = make_problem()
    oracle = Oracle(problem.model, m or 8, **definition)
    update = make_update(problem.model, "sam", m, clip_norm=0.5, label_smoothing=SMOOTHING, **arguments)
    assert_same(update, problem.model, oracle, problem)


# What to set in a config, and the same for the oracle.
CONFIGS = {
    "SAM-ON": ({"perturb": "norm"}, {}),
    "SAM-ON on a quarter": ({"perturb": "norm", "ascent_fraction": 0.25}, {"share": "0.25"}),
    "SAM-ON, every third": ({"perturb": "norm", "interval": 3}, {"interval": 3}),
    "SAM-ON and LookSAM": ({"perturb": "norm", "interval": 3, "reuse": 0.7}, {"interval": 3, "alpha": 0.7}),
    "SAM-ON, late": ({"perturb": "norm", "start": 0.6}, {"start": "0.6"}),
    "LookSAM, early": (
        {"stop": 0.7, "interval": 2, "reuse": 0.5},
        {"stop": "0.7", "interval": 2, "alpha": 0.5},
    ),
}


def configured_update(config, model, label_smoothing=0.0, unsynced=None):
    """Return the update that a config asks for."""
    return build_update.make_update(
        config.optimizer,
        model,
        model,
        resolve(config),
        num_steps=NUM_STEPS,
        label_smoothing=label_smoothing,
        unsynced=unsynced,
    )


@pytest.mark.parametrize("m", [None, 4])
@pytest.mark.parametrize("case", CONFIGS)
def test_rule_that_is_built_from_a_config_equals_its_definition(case, m):
    chosen, definition = CONFIGS[case]
    problem = make_problem()
    names = [name for name, _ in problem.model.named_parameters()]
    is_norm = ["bn" in name for name in names] if "perturb" in chosen else None
    base = {"lr": 0.1, "momentum": 0.8, "nesterov": False, "weight_decay": 1e-2}
    oracle = Oracle(problem.model, m or 8, base=base, clip_norm=0.4, rho=0.2, is_norm=is_norm, **definition)
    keys = {**base, **chosen, "clip_norm": 0.4, "rho": 0.2}
    config = changed({"m": m, **{f"optimizer.{key}": value for key, value in keys.items()}})
    update = configured_update(config, problem.model, label_smoothing=SMOOTHING)
    assert_same(update, problem.model, oracle, problem)


@pytest.mark.parametrize(
    ("steps", "image_passes", "num_images"),
    [
        ({}, 16, 8),
        ({"ascent_fraction": 0.25}, 10, 2),
        ({"ascent_steps": 3}, 32, 8),
        ({"ascent_steps": 3, "ascent_fraction": 0.25}, 14, 2),
        ({"ascents": Ascents(1, 2)}, 8, 8),
    ],
)
def test_image_passes_count_every_image_once_per_pass(steps, image_passes, num_images):
    problem = make_problem(16)
    update = make_update(problem.model, "sam", m=8, steps=steps)
    sums = dict(zip(update.rule.sums, update(problem.images, problem.targets, lr=0.1).tolist()))
    assert (sums["image_passes"], sums["num_images"]) == (2 * image_passes, 2 * num_images)


def test_norm_layers_alone_need_one_in_the_network():
    config = changed({"optimizer.perturb": "norm"})
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(ValueError, match=r"^optimizer: perturb=norm: this model has no normalisation layer"):
        configured_update(config, network)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, float("nan")])
def test_ascent_fraction_out_of_range_is_refused(fraction):
    model = make_problem().model
    with pytest.raises(ValueError, match="ascent_fraction must be greater than 0 and at most 1, got"):
        make_update(model, "sam", steps={"ascent_fraction": fraction})


class Spike(torch.autograd.Function):
    """Hands on images; the gradient that comes back is infinite where they are told to spike."""

    @staticmethod
    def forward(context, logits, spiking):
        context.save_for_backward(spiking)
        return logits.clone()

    @staticmethod
    def backward(context, grad):
        (spiking,) = context.saved_tensors
        return torch.where(spiking[:, None], torch.inf, grad), None


class Spiking(nn.Module):
    """Its gradient is infinite in the first pass over a micro-batch that holds an image of nines."""

    def __init__(self, network):
        super().__init__()
        self.network, self.num_passes = network, 0

    def forward(self, images):
        self.num_passes += 1
        spiking = (images == 9).flatten(1).all(1) & (self.num_passes % 2 == 1)
        return Spike.apply(self.network(images), spiking)


def test_micro_batch_whose_ascent_gradient_is_not_finite_is_counted_and_keeps_its_plain_gradient():
    problem = make_problem()
    problem.images[3] = 9
    plain, perturbing = Oracle(problem.model, 2, start="1"), Oracle(problem.model, 2)
    parts = list(zip(problem.images.split(2), problem.targets.split(2)))
    losses = [(plain.loss(*part), plain.loss(*part)) for part in parts]
    gradients = [
        (plain if number == 1 else perturbing).rule.gradient(0, [pair], plain.weights)
        for number, pair in enumerate(losses)
    ]
    expected = reference.Sgd(**SGD).step(plain.weights, mean(gradients), lr=0.1)
    norms = [reference.norm(reference.gradient(loss, plain.weights)) for loss, _ in losses]
    model = Spiking(problem.model)
    update = make_update(model, "sam", 2, label_smoothing=SMOOTHING)
    sums = dict(zip(update.rule.sums, update(problem.images, problem.targets, lr=0.1).tolist()))
    assert (sums["num_unperturbed"], sums["num_perturbed"], sums["num_perturbed_images"]) == (1, 3, 8)
    assert sums["grad_norm"] == pytest.approx(sum(norms) - norms[1], rel=1e-9)
    for weight, target in zip(model.parameters(), expected):
        torch.testing.assert_close(weight.detach(), target, rtol=1e-9, atol=1e-10)


def test_look_sam_keeps_nothing_of_a_gradient_that_is_not_finite():
    problem = make_problem()
    problem.images[3] = 9
    model = Spiking(problem.model)
    update = make_update(model, "sam", 2, reuse=0.7, steps={"ascents": Ascents(0, 9, 2)})
    twin = copy.deepcopy(model)
    update(problem.images, problem.targets, lr=0.1, step=0)
    twin.load_state_dict(model.state_dict())
    model.num_passes = 0  # the second micro-batch, which has the nines, then comes to an even number
    update(problem.images, problem.targets, lr=0.0, step=1)
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), twin.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_look_sam_with_rho_zero_is_sgd_and_does_not_stretch_round_off(dtype):
    problem = make_problem(6)  # thirds are not exact
    models = [copy.deepcopy(problem.model).to(dtype) for _ in range(2)]
    steps = {"ascents": Ascents(0, 9, 2)}
    updates = [
        make_update(models[0], "sam", 2, rho=0.0, reuse=0.7, steps=steps),
        make_update(models[1], "sgd", 2),
    ]
    for step in range(4):
        for update in updates:
            update(problem.images.to(dtype), problem.targets, lr=0.1, step=step)
    assert all(torch.equal(one, other) for one, other in zip(*(model.parameters() for model in models)))


def look_sam(start=0.0, m=4):
    problem = make_problem()
    keys = {"optimizer.interval": 3, "optimizer.reuse": 0.7, "optimizer.start": start}
    return problem, configured_update(changed({"m": m, **keys}), problem.model)


@pytest.mark.parametrize("stop_after", range(NUM_STEPS))
@pytest.mark.parametrize("start", [0.0, 0.25])
def test_look_sam_stopped_anywhere_goes_on_to_the_same_bits(tmp_path, stop_after, start):
    def run(problem, update, steps):
        for step in steps:
            update(problem.images, problem.targets, 0.1 / (step + 1), step=step)

    whole, update = look_sam(start)
    run(whole, update, range(NUM_STEPS))
    stopped, update = look_sam(start)
    run(stopped, update, range(stop_after))
    state = {"model": stopped.model.state_dict(), "optimizer": update.rule.optimizer.state_dict()}
    torch.save(state, tmp_path / "state.pt")
    resumed, update = look_sam(start)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.model.load_state_dict(state["model"])
    update.rule.optimizer.load_state_dict(state["optimizer"])
    run(resumed, update, range(stop_after, NUM_STEPS))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
