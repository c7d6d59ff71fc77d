"""LookSAM, F-SAM and VaSSO in two processes, against their definitions in float64."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import distributed

from sam.optim import FSAM, VaSSO
from sam.optim.schedule import Ascents
from sam.training.averaged import AveragedSAMRule
from sam.training.distributed import World, close_process_group, data_parallel
from sam.training.update import Update
from tests.quick_process import start_server
from tests.reference import averaged
from tests.reference import sam as reference
from tests.reference.cheaper import Cheaper
from tests.training.updates import RHO, SGD, functional_loss, make_pass, make_problem, make_update

NUM_STEPS = 5
STEPS = {"ascents": Ascents(0, NUM_STEPS, 2)}
F_SAM = {"sigma": 0.7, "decay": 0.8}


class LookSAM(Cheaper):
    """Its definition, with the interface of the others."""

    step = 0

    def gradient(self, micro_batches, weights):
        self.step += 1
        return super().gradient(self.step - 1, micro_batches, weights)


# Those of SHARED share eps. In the others, each process has an eps of its own.
RULES = {
    "LookSAM": lambda: LookSAM(RHO, NUM_STEPS, interval=2, alpha=0.7),
    "F-SAM, shared": lambda: averaged.FSAM(RHO, **F_SAM),
    "F-SAM": lambda: averaged.FSAM(RHO, **F_SAM),
    "VaSSO": lambda: averaged.VaSSO(RHO, theta=0.3),
}
SHARED = ("LookSAM", "F-SAM, shared")


def train_a_share(rank, folder):
    """Make all updates with half of each batch, in one of two processes."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    mine = slice(4 * rank, 4 * rank + 4)
    for name in RULES:
        problem = make_problem()
        update = update_by(name, problem.model, World(rank, 2))
        for step in range(NUM_STEPS):
            update(problem.images[mine], problem.targets[mine], lr=0.1, step=step)
        torch.save(problem.model.state_dict(), f"{folder}/{name}-{rank}.pt")
        del update
    close_process_group(0)


def update_by(name, model, world):
    """Return the update of one of two processes."""
    called = data_parallel(model)
    if name == "LookSAM":
        steps = {**STEPS, "sync_ascent": True}
        return make_update(model, "sam", clip_norm=0.5, called=called, steps=steps, reuse=0.7)
    kind, settings = (VaSSO, {"theta": 0.3}) if name == "VaSSO" else (FSAM, F_SAM)
    sam = kind(model.parameters(), torch.optim.SGD, rho=RHO, **settings, **SGD)
    forward_backward = make_pass(model, called=called)
    rule = AveragedSAMRule(forward_backward, sam, world, sync_ascent=name in SHARED)
    return Update(rule, forward_backward, clip_norm=0.5)


@pytest.mark.ddp
def test_rules_in_two_processes_equal_their_definitions_for_the_batch_of_both(tmp_path):
    start_server()
    torch.multiprocessing.start_processes(train_a_share, (str(tmp_path),), 2, start_method="forkserver")
    for name, rule in RULES.items():
        check_against(rule(), tmp_path, name)


def check_against(rule, folder, name):
    """Compare the weights of both processes with those that a definition gives."""
    problem, base = make_problem(), reference.Sgd(**SGD)
    # Batch norm sees the images of one process; a shared eps belongs to the mean of both losses.
    halves = [
        functional_loss(copy.deepcopy(problem.model), problem.images[mine], problem.targets[mine])
        for mine in (slice(0, 4), slice(4, 8))
    ]

    def loss(weights):
        return (halves[0](weights) + halves[1](weights)) / 2

    micro_batches = [(loss, loss)] if name in SHARED else [(half, half) for half in halves]
    weights = [weight.detach().clone() for weight in problem.model.parameters()]
    for _ in range(NUM_STEPS):
        gradient = rule.gradient(micro_batches, weights)
        weights = base.step(weights, reference.clip(gradient, 0.5), lr=0.1)
    states = [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]
    for (name, _), target in zip(problem.model.named_parameters(), weights):
        assert torch.equal(states[0][name], states[1][name])
        torch.testing.assert_close(states[0][name], target, rtol=1e-9, atol=1e-10)


def test_reuse_in_processes_that_do_not_share_eps_is_refused(monkeypatch):
    # Each would keep another part, and go its own way.
    model = make_problem().model
    monkeypatch.setattr(model, "no_sync", nullcontext, raising=False)
    with pytest.raises(ValueError, match=r"^reuse \(LookSAM\) with several processes needs sync_ascent=True"):
        make_update(model, "sam", steps=STEPS, reuse=0.7)
    make_update(model, "sam", steps={**STEPS, "sync_ascent": True}, reuse=0.7)
