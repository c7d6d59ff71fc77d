"""The trainer's rules with maximize=True: minimising f and maximising -f are the same run, to the bit."""

import copy

import pytest
import torch

from sam.optim import SAM
from sam.optim.schedule import Ascents
from sam.training.forward_backward import ForwardBackward
from sam.training.look_sam import OrthogonalReuse
from sam.training.rule import SAMRule
from sam.training.second_order import SecondOrderSAMRule
from sam.training.update import Update
from tests.training.updates import SGD, make_pass, make_problem


class Negated(ForwardBackward):
    """Passes over -f; the sums are those of f."""

    def __call__(self, *arguments, share, **passes):
        return super().__call__(*arguments, share=-share, **passes)


def sam_rule(forward_backward, model, maximize, reuse=0.0, geometry=None, **rule):
    sam = SAM(model.parameters(), torch.optim.SGD, rho=0.3, maximize=maximize, **(geometry or {}), **SGD)
    return SAMRule(forward_backward, sam, reuse=OrthogonalReuse(sam, reuse) if reuse else None, **rule)


RULES = {
    "sam": {},
    "adaptive": {"geometry": {"adaptive": True}},
    "p": {"geometry": {"p": 3.0}},
    "ascent steps": {"ascent_steps": 3, "ascent_step_size": 0.5},
    "looksam": {"reuse": 0.7, "ascents": Ascents(0, 100, 2)},
    "part of the images": {"ascent_fraction": 0.5},
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("m", [None, 4])
def test_to_maximise_minus_f_is_to_minimise_f(rule, m):
    problem = make_problem()
    results = []
    for kind, maximize in ((ForwardBackward, False), (Negated, True)):
        model = copy.deepcopy(problem.model)
        forward_backward = make_pass(model, weight_decay_in_loss=1e-2)
        forward_backward.__class__ = kind
        update = Update(
            sam_rule(forward_backward, model, maximize, **rule), forward_backward, m, clip_norm=0.5
        )
        sums = [update(problem.images, problem.targets, 0.1, step=step) for step in range(3)]
        results.append((sums, list(model.parameters())))
    (sums, weights), (negated_sums, negated_weights) = results
    assert all(torch.equal(one, other) for one, other in zip(weights, negated_weights))
    assert all(torch.equal(one, other) for one, other in zip(sums, negated_sums)), "the cosine is among them"


class NegatedLoss(ForwardBackward):
    """Passes whose loss is -f."""

    def forward(self, *arguments, **passes):
        logits, loss = super().forward(*arguments, **passes)
        return logits, -loss


def test_to_maximise_minus_f_is_to_minimise_f_with_the_second_order_term():
    problem = make_problem()
    results = []
    for kind, maximize in ((ForwardBackward, False), (NegatedLoss, True)):
        model = copy.deepcopy(problem.model)
        forward_backward = make_pass(model)
        forward_backward.__class__ = kind
        optimizer = torch.optim.SGD(model.parameters(), maximize=maximize, **SGD)
        update = Update(SecondOrderSAMRule(forward_backward, optimizer, rho=0.3), forward_backward)
        for _ in range(2):
            update(problem.images, problem.targets, 0.1)
        results.append(list(model.parameters()))
    for weight, negated in zip(*results):
        torch.testing.assert_close(weight, negated, rtol=1e-12, atol=1e-13)
