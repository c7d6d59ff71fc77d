"""F-SAM, VaSSO and LE-SAM in the trainer against their definitions, over eight updates in float64."""

import copy

import pytest
import torch

from sam.config.check import check
from tests.conftest import changed
from tests.reference import averaged
from tests.reference.cheaper import mean, phase
from tests.reference.sam import gradient
from tests.training.test_cheaper_rules import (
    NUM_STEPS,
    SMOOTHING,
    Oracle,
    Spiking,
    assert_same,
    configured_update,
)
from tests.training.updates import make_problem

BASE = {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 1e-2}


class Definition:
    """A rule of tests/reference/averaged.py with the interface that Oracle needs."""

    ascent_steps = 1

    def __init__(self, rule, start="0", stop="1", interval=1):
        self.rule, self.eps = rule, rule.eps
        self.ascents = phase(start, stop, NUM_STEPS)[::interval]

    def gradient(self, step, micro_batches, weights):
        self.rule.step = step
        if step not in self.ascents:
            return mean([gradient(loss, weights) for _, loss in micro_batches])
        return self.rule.gradient(micro_batches, weights)


F_SAM = {"rule": "f_sam", "rho": 0.3, "f_sam_sigma": 0.7, "f_sam_decay": 0.8}
VASSO = {"rule": "vasso", "rho": 0.3, "vasso_theta": 0.3}
LE_SAM = {"rule": "le_sam", "rho": 0.4, "le_sam_sigma": 0.9, "le_sam_warm_up": 0.5, "le_sam_fall": 0.6}


def f_sam(**ball):
    return averaged.FSAM(0.3, 0.7, 0.8, **ball)


def vasso(**ball):
    return averaged.VaSSO(0.3, 0.3, **ball)


def le_sam(**ball):
    return averaged.LESAM(0.4, 0.9, NUM_STEPS, 0.5, 0.6, **ball)


# Keys of optimizer, the rule by its definition, and what else the oracle needs to know.
CASES = {
    "F-SAM": (F_SAM, f_sam(), {}, {}),
    "F-SAM, sigma 1": ({**F_SAM, "f_sam_sigma": 1.0}, averaged.FSAM(0.3, 1.0, 0.8), {}, {}),
    "F-SAM, adaptive": ({**F_SAM, "adaptive": True}, f_sam(adaptive=True), {}, {}),
    "F-SAM, every third": ({**F_SAM, "interval": 3}, f_sam(), {"interval": 3}, {}),
    "F-SAM on a half": ({**F_SAM, "ascent_fraction": 0.5}, f_sam(), {}, {"share": "0.5"}),
    "F-SAM, decay in the loss": (
        {**F_SAM, "weight_decay_in": "loss"},
        f_sam(),
        {},
        {"weight_decay": 1e-2, "base": {**BASE, "weight_decay": 0.0}},
    ),
    "VaSSO": (VASSO, vasso(), {}, {}),
    "VaSSO, p": ({**VASSO, "p": 3.0}, vasso(p=3.0), {}, {}),
    "VaSSO, late": ({**VASSO, "start": 0.5}, vasso(), {"start": "0.5"}, {}),
    "LE-SAM": (LE_SAM, le_sam(), {}, {}),
    "LE-SAM, adaptive": ({**LE_SAM, "adaptive": True}, le_sam(adaptive=True), {}, {}),
    "LE-SAM on a half": ({**LE_SAM, "ascent_fraction": 0.5}, le_sam(), {}, {"share": "0.5"}),
}


@pytest.mark.parametrize(("case", "m"), [*((case, 4) for case in CASES), ("F-SAM", None), ("LE-SAM", None)])
def test_rule_equals_its_definition(case, m):
    keys, rule, ascents, known = CASES[case]
    problem = make_problem()
    oracle = Oracle(problem.model, m or 8, **{"base": BASE, "clip_norm": 0.4, **known})
    oracle.rule = Definition(copy.deepcopy(rule), **ascents)
    keys = {**BASE, "clip_norm": 0.4, **keys}
    config = changed({"m": m, **{f"optimizer.{key}": value for key, value in keys.items()}})
    check(config)
    assert_same(
        configured_update(config, problem.model, label_smoothing=SMOOTHING), problem.model, oracle, problem
    )


def update_of(keys, m=4):
    problem = make_problem()
    config = changed({"m": m, **{f"optimizer.{key}": value for key, value in keys.items()}})
    return problem, configured_update(config, problem.model)


@pytest.mark.parametrize(
    "keys", [{"rule": "f_sam", "f_sam_sigma": 0.0}, {"rule": "vasso", "vasso_theta": 1.0}]
)
def test_rule_without_memory_is_sam_to_the_bit(keys):
    (one, update), (other, sam) = update_of({"rho": 0.3, **keys}), update_of({"rho": 0.3})
    for step in range(3):
        sums = [call(one.images, one.targets, lr=0.1, step=step) for call in (update, sam)]
        shown = [dict(zip(sam.rule.sums, each.tolist())) for each in sums]
        assert shown[0]["grad_norm"] == shown[1]["grad_norm"]
    assert all(torch.equal(*pair) for pair in zip(one.model.parameters(), other.model.parameters()))


@pytest.mark.parametrize("keys", [F_SAM, VASSO], ids=["F-SAM", "VaSSO"])
def test_micro_batch_whose_gradient_is_not_finite_leaves_the_average_as_it_is(keys):
    problem = make_problem()
    model = Spiking(problem.model)
    config = changed({"m": 2, **{f"optimizer.{key}": value for key, value in keys.items()}})
    update = configured_update(config, model)
    update(problem.images, problem.targets, lr=0.1, step=0)
    before = [average.clone() for average in update.rule.optimizer.state_dict()["sam"]["averages"].values()]
    problem.images[3] = 9
    sums = dict(zip(update.rule.sums, update(problem.images, problem.targets, lr=0.1, step=1).tolist()))
    after = update.rule.optimizer.state_dict()["sam"]["averages"].values()
    assert (sums["num_unperturbed"], sums["num_perturbed"]) == (1, 3)
    assert all(torch.equal(*pair) for pair in zip(after, before, strict=True))


@pytest.mark.parametrize("stop_after", [0, 1, 3])
@pytest.mark.parametrize("keys", [F_SAM, {**VASSO, "interval": 2}, LE_SAM], ids=["F-SAM", "VaSSO", "LE-SAM"])
def test_stopped_update_continues_to_the_same_bits(tmp_path, keys, stop_after):
    def run(problem, update, steps):
        for step in steps:
            update(problem.images, problem.targets, 0.1 / (step + 1), step=step)

    whole, update = update_of(keys)
    run(whole, update, range(5))
    stopped, update = update_of(keys)
    run(stopped, update, range(stop_after))
    torch.save([stopped.model.state_dict(), update.rule.optimizer.state_dict()], tmp_path / "state.pt")
    resumed, update = update_of(keys)
    states = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.model.load_state_dict(states[0])
    update.rule.optimizer.load_state_dict(states[1])
    run(resumed, update, range(stop_after, 5))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


@pytest.mark.parametrize("keys", [F_SAM, VASSO, LE_SAM], ids=["F-SAM", "VaSSO", "LE-SAM"])
def test_loss_scale_is_refused(keys):
    config = changed({f"optimizer.{key}": value for key, value in keys.items()})
    config.runtime.precision = "fp16"
    with pytest.raises(ValueError, match="cannot scale the loss; use precision bf16 instead of fp16"):
        configured_update(config, make_problem().model)
