"""The rules of SAM's family with a loss scale."""

import copy

import pytest
import torch

from sam.optim import SAM
from sam.training.functional_sam import FunctionalSAMRule
from sam.training.stable_sam import StableSAMRule
from sam.training.update import Update
from tests.training.processes import Explosive
from tests.training.test_one_pass import configured
from tests.training.updates import make_pass

RULES = ("msam", "s2_sam", "functional_sam", "stable_sam")


def train_in_fp16(rule, scale, explodes_in=()):
    """Return the weights and the optimizer's state after each update of a run with a loss scale."""
    model = Explosive()
    update = configured(rule, model, precision="fp16", weight_decay=0.1, weight_decay_in="loss")
    update.scaler.load_state_dict({**update.scaler.state_dict(), "scale": scale})
    generator = torch.Generator().manual_seed(3)
    trained = []
    for step in range(4):
        images = torch.randn(8, 192, generator=generator)
        model.explodes_when_uphill = False if step in explodes_in else None
        update(images, torch.arange(8) % 7, lr=0.1)
        state = copy.deepcopy(update.rule.optimizer.state_dict())
        trained.append((model.linear.weight.detach().clone(), state))
    return trained


@pytest.mark.parametrize("rule", RULES)
def test_loss_scale_does_not_change_a_bit(rule):
    runs = [train_in_fp16(rule, scale) for scale in (2.0**8, 2.0**12)]
    for (one, _), (other, _) in zip(*runs):
        assert torch.equal(one, other)
    assert not torch.equal(runs[0][0][0], runs[0][1][0])


@pytest.mark.parametrize("rule", RULES)
def test_update_that_is_skipped_changes_neither_the_weights_nor_the_next_perturbation(rule):
    (_, (weight, state), (skipped, state_after), (last, _)) = train_in_fp16(rule, 2.0**8, explodes_in=[2])
    assert torch.equal(weight, skipped)
    assert torch.isfinite(last).all() and not torch.equal(last, skipped)
    kept = [state["state"][0]["momentum_buffer"], state_after["state"][0]["momentum_buffer"]]
    assert torch.equal(*kept)
    if rule == "s2_sam":
        assert torch.equal(state["sam"]["gradients"][0], state_after["sam"]["gradients"][0])


@pytest.mark.parametrize("kind", [FunctionalSAMRule, StableSAMRule])
@pytest.mark.parametrize("uphill", [True, False])
def test_overflow_in_either_pass_skips_the_update(kind, uphill):
    model = Explosive()
    passes = make_pass(model, "fp16", weight_decay_in_loss=0.1)
    sam = SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1)
    update = Update(kind(passes, sam, true_gradient=model.set_uphill), passes, 4)
    before = model.linear.weight.detach().clone()
    images, targets = torch.randn(8, 192), torch.arange(8) % 7
    model.explodes_when_uphill = uphill
    update(images, targets, lr=0.1)
    assert torch.equal(model.linear.weight, before)
    model.explodes_when_uphill = None
    update(images, targets, lr=0.1)
    assert torch.isfinite(model.linear.weight).all() and not torch.equal(model.linear.weight, before)
