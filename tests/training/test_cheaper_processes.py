"""LookSAM in two processes that share eps, against its definition in float64."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import distributed

from sam.optim.schedule import Ascents
from sam.training.distributed import data_parallel, leave_world
from tests.quick_process import start_server
from tests.reference import sam as reference
from tests.reference.cheaper import Cheaper
from tests.training.updates import RHO, SGD, functional_loss, make_problem, make_update

NUM_STEPS = 5
STEPS = {"ascents": Ascents(0, NUM_STEPS, 2)}


def train_a_share(rank, folder):
    """Make all updates with half of each batch, in one of two processes."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    problem = make_problem()
    mine = slice(4 * rank, 4 * rank + 4)
    called = data_parallel(problem.model)
    steps = {**STEPS, "sync_ascent": True}
    update = make_update(problem.model, "sam", clip_norm=0.5, called=called, steps=steps, reuse=0.7)
    for step in range(NUM_STEPS):
        update(problem.images[mine], problem.targets[mine], lr=0.1, step=step)
    torch.save(problem.model.state_dict(), f"{folder}/{rank}.pt")
    leave_world(0)


@pytest.mark.ddp
def test_look_sam_in_two_processes_equals_its_definition_for_the_batch_of_both(tmp_path):
    start_server()
    torch.multiprocessing.start_processes(train_a_share, (str(tmp_path),), 2, start_method="forkserver")
    problem, base = make_problem(), reference.Sgd(**SGD)
    # Batch norm sees the images of one process; eps belongs to the mean of both losses.
    halves = [
        functional_loss(copy.deepcopy(problem.model), problem.images[mine], problem.targets[mine])
        for mine in (slice(0, 4), slice(4, 8))
    ]

    def loss(weights):
        return (halves[0](weights) + halves[1](weights)) / 2

    rule = Cheaper(RHO, NUM_STEPS, interval=2, alpha=0.7)
    weights = [weight.detach().clone() for weight in problem.model.parameters()]
    for step in range(NUM_STEPS):
        gradient = rule.gradient(step, [(loss, loss)], weights)
        weights = base.step(weights, reference.clip(gradient, 0.5), lr=0.1)
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
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
