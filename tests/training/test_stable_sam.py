"""Stable SAM in the trainer, built from a config, against its definition in float64."""

import copy
import functools
from contextlib import nullcontext

import pytest
import torch

from sam.optim import SAM
from sam.training.stable_sam import StableSAMRule
from tests.reference import sam as reference
from tests.reference.stable_sam import stable_sam_gradient
from tests.training.test_one_pass import CASES, NUM_STEPS, RHO, batches, configured
from tests.training.updates import make_pass, make_problem, oracle_update


@pytest.mark.parametrize("m", [None, 4])
@pytest.mark.parametrize("case", [*CASES, "adaptive"])
def test_updates_equal_the_definition(case, m):
    keys = CASES.get(case, {"adaptive": True})
    model, in_loss = make_problem().model, keys.get("weight_decay_in") == "loss"
    oracle, decay = copy.deepcopy(model), keys.get("weight_decay", 0.0)
    base = reference.Sgd(
        0.1, keys.get("momentum", 0.9), keys.get("nesterov", True), 0.0 if in_loss else decay
    )
    gradient = functools.partial(stable_sam_gradient, rho=RHO, adaptive=case == "adaptive")
    update = configured("stable_sam", model, m, **keys)
    for step, batch in enumerate(batches()):
        sums = dict(zip(update.rule.sums, update(*batch, lr=0.1, step=step).tolist()))
        clip_norm = keys.get("clip_norm")
        oracle_update(oracle, base, gradient, *batch, m or 8, clip_norm, decay if in_loss else 0.0)
        assert sums["image_passes"] == 16
        for name, tensor in model.state_dict().items():
            # float64 round-off through eight convolutions, grown over the updates
            torch.testing.assert_close(tensor, oracle.state_dict()[name], rtol=1e-9, atol=1e-10)


def test_gradient_of_each_micro_batch_has_the_length_of_its_plain_gradient_and_sams_direction():
    models = {name: make_problem().model for name in ("stable_sam", "sam")}
    (batch,) = batches(count=1)
    grads = {}
    for name, model in models.items():
        update = configured(name, model)
        sums = dict(zip(update.rule.sums, update.gradient(*batch).tolist()))
        grads[name] = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    torch.testing.assert_close(float(grads["stable_sam"].norm()), sums["grad_norm"])
    cosine = torch.nn.functional.cosine_similarity(grads["stable_sam"], grads["sam"], dim=0)
    assert float(cosine) == pytest.approx(1, abs=1e-12)
    assert not torch.allclose(grads["stable_sam"], grads["sam"])


def test_rho_zero_is_sgd_to_the_bit():
    models = [make_problem().model for _ in range(2)]
    updates = [configured("stable_sam", models[0], rho=0.0), configured("sam", models[1], name="sgd")]
    for images, targets in batches(count=NUM_STEPS):
        for update in updates:
            update(images, targets, lr=0.1)
    assert all(torch.equal(one, other) for one, other in zip(*(model.parameters() for model in models)))


def test_several_processes_are_refused():
    model = make_problem().model
    sam = SAM(model.parameters(), torch.optim.SGD, rho=RHO, lr=0.1)
    with pytest.raises(ValueError, match=r"^Stable SAM runs in one process; start it without torchrun$"):
        StableSAMRule(make_pass(model, unsynced=nullcontext), sam)
