"""MSAM and S2-SAM in the trainer, built from a config, against their definitions in float64."""

import copy

import pytest
import torch

from sam.build.resolved import resolve
from sam.build.update import make_update
from tests.conftest import changed
from tests.reference.one_pass import MSAM, S2SAM
from tests.training.updates import functional_loss, make_problem

NUM_STEPS = 5
RHO = 0.5
ORACLES = {"msam": MSAM, "s2_sam": S2SAM}
CASES = {
    "plain": {"nesterov": False},
    "nesterov": {"nesterov": True},
    "clipping": {"nesterov": False, "clip_norm": 0.3},
    "decay": {"nesterov": False, "weight_decay": 0.1},
    "decay in the loss": {"nesterov": False, "weight_decay": 0.1, "weight_decay_in": "loss"},
    "all in the loss": {
        "nesterov": True, "weight_decay": 0.1, "weight_decay_in": "loss", "clip_norm": 0.3, "momentum": 0.5
    },
}  # fmt: skip


def configured(rule, model, m=None, precision="fp32", label_smoothing=0.0, **keys):
    """Return the update that a config asks for; without clipping and weight decay if no key says more."""
    keys = {"clip_norm": None, "weight_decay": 0.0, "rho": RHO, **keys}
    config = changed(
        {
            "m": m,
            "runtime.precision": precision,
            "optimizer.rule": rule,
            **{f"optimizer.{key}": value for key, value in keys.items()},
        }
    )
    return make_update(
        config.optimizer,
        model,
        model,
        resolve(config),
        num_steps=NUM_STEPS,
        label_smoothing=label_smoothing,
    )


def oracle_of(rule, model, keys):
    """Return the definition with the same keys as a config."""
    names = {"clip_norm": "largest", "weight_decay": "decay", "weight_decay_in": "decay_in"}
    weights = [weight.detach().clone() for weight in model.parameters()]
    return ORACLES[rule](weights, RHO, **{names.get(key, key): value for key, value in keys.items()})


def batches(num_images=8, count=NUM_STEPS):
    """Return the batches of a run, another one for each update."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(count):
        images = torch.randn(num_images, 3, 12, 12, dtype=torch.float64, generator=generator)
        yield images, torch.randint(0, 7, (num_images,), generator=generator)


def losses_of(model, images, targets, m):
    return [functional_loss(copy.deepcopy(model), *part) for part in zip(images.split(m), targets.split(m))]


def assert_close(model, weights):
    for weight, target in zip(model.parameters(), weights, strict=True):
        # float64 round-off through eight convolutions, grown over the updates
        torch.testing.assert_close(weight.detach(), target, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("m", [None, 4])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rule", ORACLES)
def test_updates_equal_the_definition(rule, case, m):
    model = make_problem().model
    oracle = oracle_of(rule, model, CASES[case])
    update = configured(rule, model, m, **CASES[case])
    for step, (images, targets) in enumerate(batches()):
        losses = losses_of(model, images, targets, m or 8)
        there = oracle.point()
        expected = sum(float(loss(there)) for loss in losses) / len(losses)
        lr = 0.1 / (step + 1)
        oracle.update(losses, lr)
        sums = dict(zip(update.rule.sums, update(images, targets, lr, step=step).tolist()))
        assert sums["loss"] / 8 == pytest.approx(expected, rel=1e-9), "the loss is that at w~"
        assert sums["image_passes"] == 8
        assert_close(model, oracle.weights)


@pytest.mark.parametrize("rule", ORACLES)
def test_statistics_of_batch_norm_come_from_the_pass_at_the_perturbed_weights(rule):
    model = make_problem().model
    update = configured(rule, model)
    (first, second) = batches(count=2)
    update(*first, lr=0.1)
    twin = copy.deepcopy(model)
    other = configured(rule, twin)
    other.rule.optimizer.load_state_dict(update.rule.optimizer.state_dict())
    other.rule.begin(1)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters()))
    twin(second[0])  # at w~
    update(*second, lr=0.1)
    for buffer, expected in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", ORACLES)
def test_rho_zero_is_sgd_to_the_bit(rule):
    models = [make_problem().model for _ in range(2)]
    keys = {"clip_norm": 0.3, "weight_decay": 0.1}
    updates = [configured(rule, models[0], 4, rho=0.0, **keys)]
    updates.append(configured("sam", models[1], 4, name="sgd", **keys))
    for images, targets in batches():
        for update in updates:
            update(images, targets, lr=0.1)
    assert all(torch.equal(one, other) for one, other in zip(*(model.parameters() for model in models)))


@pytest.mark.parametrize("rule", ORACLES)
def test_weights_return_after_an_error_in_the_pass(rule):
    model = make_problem().model
    update = configured(rule, model)
    (first, second) = batches(count=2)
    update(*first, lr=0.1)
    before = [weight.detach().clone() for weight in model.parameters()]
    with pytest.raises(IndexError):
        update(second[0], second[1] + 100, lr=0.1)
    assert all(torch.equal(old, weight) for old, weight in zip(before, model.parameters()))
    assert not update.rule.optimizer.is_perturbed
