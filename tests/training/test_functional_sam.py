"""Functional-SAM in the trainer, built from a config, against its definition in float64."""

import copy

import pytest
import torch
from torch import nn

from tests.reference import sam as reference
from tests.reference.functional_sam import functional_sam_gradient
from tests.training.test_one_pass import assert_close, configured
from tests.training.updates import mean

NUM_STEPS, SMOOTHING, RHO = 5, 0.1, 0.5
CASES = {
    "plain": {},
    "no momentum": {"momentum": 0.0, "nesterov": False},
    "clipping": {"clip_norm": 0.1},
    "decay": {"weight_decay": 0.1, "nesterov": False},
    "decay in the loss": {"weight_decay": 0.1, "weight_decay_in": "loss"},
    "decay in the loss and clipping": {"weight_decay": 0.1, "weight_decay_in": "loss", "clip_norm": 0.1},
    "adaptive": {"adaptive": True},
}


def make_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)
    ).double()


def batches(count=NUM_STEPS):
    generator = torch.Generator().manual_seed(2)
    for _ in range(count):
        yield torch.randn(8, 3, 2, 2, dtype=torch.float64, generator=generator), torch.arange(8) % 3


class Oracle:
    """The weights of a run, update by update."""

    def __init__(self, model, m, momentum=0.9, nesterov=True, weight_decay=0.0, weight_decay_in="optimizer",
                 clip_norm=None, adaptive=False):  # fmt: skip
        self.weights = [weight.detach().clone() for weight in model.parameters()]
        self.names = [name for name, _ in model.named_parameters()]
        self.model, self.m, self.largest, self.adaptive = copy.deepcopy(model), m, clip_norm, adaptive
        self.decay = weight_decay if weight_decay_in == "loss" else 0.0
        self.sgd = reference.Sgd(0.1, momentum, nesterov, 0.0 if self.decay else weight_decay)

    def update(self, images, targets):
        def logits_of(part):
            return lambda weights: torch.func.functional_call(
                copy.deepcopy(self.model), dict(zip(self.names, weights)), (part,)
            )

        grads = mean(
            [
                functional_sam_gradient(
                    logits_of(part), labels, self.weights, RHO, self.decay, SMOOTHING, self.adaptive
                )
                for part, labels in zip(images.split(self.m), targets.split(self.m))
            ]
        )
        if self.largest is not None:
            grads = reference.clip(grads, self.largest)
        self.weights = self.sgd.step(self.weights, grads)


@pytest.mark.parametrize("m", [None, 4])
@pytest.mark.parametrize("case", CASES)
def test_updates_equal_the_definition(case, m):
    model = make_network()
    oracle = Oracle(model, m or 8, **CASES[case])
    update = configured("functional_sam", model, m, label_smoothing=SMOOTHING, rho=RHO, **CASES[case])
    for step, batch in enumerate(batches()):
        oracle.update(*batch)
        sums = dict(zip(update.rule.sums, update(*batch, lr=0.1, step=step).tolist()))
        assert sums["image_passes"] == 16
        assert_close(model, oracle.weights)


@pytest.mark.parametrize("keys", [{}, {"weight_decay": 0.3, "weight_decay_in": "loss", "clip_norm": 0.5}])
@pytest.mark.parametrize("rho", [0.05, 3.0])
def test_network_that_is_linear_in_its_weights_has_the_updates_of_sgd(rho, keys):
    torch.manual_seed(0)
    # The same mask in both passes; another one would change the Jacobian.
    models = [nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(12, 3)).double()]
    models.append(copy.deepcopy(models[0]))
    updates = [configured("functional_sam", models[0], 4, rho=rho, **keys)]
    updates.append(configured("sam", models[1], 4, name="sgd", **keys))
    for batch in batches():
        draws = torch.get_rng_state()
        for update in updates:
            torch.set_rng_state(draws)
            update(*batch, lr=0.1)
    for one, other in zip(*(model.parameters() for model in models)):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_first_pass_is_that_of_sam_and_updates_that_do_not_perturb_are_those_of_sgd():
    models = {name: make_network() for name in ("functional_sam", "sam", "sgd")}
    keys = {"weight_decay": 0.1, "weight_decay_in": "loss"}
    updates = {
        "functional_sam": configured("functional_sam", models["functional_sam"], 4, start=0.2, **keys),
        "sam": configured("sam", models["sam"], 4, start=0.2, **keys),
        "sgd": configured("sam", models["sgd"], 4, name="sgd", **keys),
    }
    first, second = batches(2)
    for update in updates.values():
        update(*first, lr=0.1, step=0)
    for one, *others in zip(*(model.parameters() for model in models.values())):
        assert all(torch.equal(one, other) for other in others)
    sums = {}
    for name in ("functional_sam", "sam"):
        sums[name] = dict(zip(updates[name].rule.sums, updates[name](*second, lr=0.1, step=1).tolist()))
    for key in ("loss", "errors", "grad_norm", "perturbed_loss", "loss_rise", "image_passes"):
        assert sums["functional_sam"][key] == pytest.approx(sums["sam"][key], rel=1e-12)
    for one, other in zip(models["functional_sam"].buffers(), models["sam"].buffers()):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert not torch.equal(*(models[name][1].weight for name in sums))


@pytest.mark.parametrize(("in_loss", "num_cosines"), [(False, 1), (True, 0)])
def test_cosine_is_that_of_both_gradients(in_loss, num_cosines):
    model = make_network()
    keys = {"weight_decay": 0.1, "weight_decay_in": "loss"} if in_loss else {}
    update = configured("functional_sam", model, rho=RHO, **keys)
    weights = [weight.detach().clone() for weight in model.parameters()]
    oracle = Oracle(model, 8)
    (batch,) = batches(1)
    sums = dict(zip(update.rule.sums, update(*batch, lr=0.1).tolist()))
    assert sums["num_cosines"] == num_cosines
    if num_cosines:
        names = oracle.names

        def logits(weights):
            return torch.func.functional_call(oracle.model, dict(zip(names, weights)), (batch[0],))

        plain = reference.gradient(
            lambda weights: nn.functional.cross_entropy(logits(weights), batch[1]), weights
        )
        found = functional_sam_gradient(logits, batch[1], weights, RHO)
        product = sum(float((a * b).sum()) for a, b in zip(plain, found))
        expected = product / reference.norm(plain) / reference.norm(found)
        assert sums["cosine"] == pytest.approx(expected, rel=1e-9)
