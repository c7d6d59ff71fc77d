"""What several processes come to in float64, for tests: one start of processes for many cases."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from sam.models.cifar_resnet import CifarResNet
from sam.optim import MSAM, S2SAM, SAM
from sam.training.distributed import World, close_process_group, data_parallel
from sam.training.functional_sam import FunctionalSAMRule
from sam.training.gradients import FlatGradients
from sam.training.one_pass import OnePassRule
from sam.training.replay import Replay
from sam.training.rule import SAMRule, SGDRule
from sam.training.sharding import gathered, load_model, shard, sharded_like
from sam.training.update import Update
from tests.quick_process import start_server
from tests.reference.tape import TapeRecorder
from tests.training.updates import RHO, SGD, make_pass

NUM_IMAGES, M, NUM_STEPS = 256, 32, 3
ONE_PASS = {"msam": MSAM, "s2_sam": S2SAM}


def make_images(num_images=NUM_IMAGES):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(num_images, 3, 8, 8, dtype=torch.float64, generator=generator)
    return images, torch.randint(0, 7, (num_images,), generator=generator)


def make_convolutions():
    """With batch norm, whose statistics are those of a micro-batch."""
    torch.manual_seed(0)
    return CifarResNet(depth=8, width=4, in_channels=3, num_classes=7).double()


def make_tanh():
    """Without batch norm, so that a batch may be split in any way; one bias leaves a process no shard."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Tanh(), nn.Linear(5, 1), nn.Linear(1, 7))
    return body.double()


def make_update(
    model, name, called=None, m=M, adaptive=False, perturbed=lambda name: True, passes=None, **rule
):
    """An update as sam/build/update.py makes it, with clipping and weight decay in the loss."""
    passes = passes or make_pass(model, called=called, weight_decay_in_loss=0.05)
    if name == "sgd":
        return Update(SGDRule(passes, torch.optim.SGD(model.parameters(), **SGD)), passes, m, 0.5)
    if name in ONE_PASS:
        optimizer = ONE_PASS[name](model.parameters(), torch.optim.SGD, rho=RHO, **SGD)
        return Update(OnePassRule(passes, optimizer), passes, m, 0.5)
    groups = [{"params": [weight], "perturbed": perturbed(name)} for name, weight in model.named_parameters()]
    sam = SAM(groups, torch.optim.SGD, rho=RHO, adaptive=adaptive, **SGD)
    kind = FunctionalSAMRule if name == "functional_sam" else SAMRule
    return Update(kind(passes, sam, **rule), passes, m, 0.5)


def share(world, images, targets):
    size = len(images) // world.size
    mine = slice(world.rank * size, (world.rank + 1) * size)
    return images[mine], targets[mine]


def train(update, world, num_steps=NUM_STEPS):
    images, targets = share(world, *make_images())
    return sum(update(images, targets, lr=0.1, step=step) for step in range(num_steps))


def counted(called):
    """Count how often processes exchange a bucket of gradients."""
    counts = []

    def exchange(state, bucket):
        counts.append(bucket.index())
        return allreduce_hook(None, bucket)

    called.register_comm_hook(None, exchange)
    return counts


def data_parallel_case(world, make, name, m=M, **rule):
    """Train with DistributedDataParallel; return weights, mean statistics, exchanges and the loss."""
    model = make()
    called = data_parallel(model)
    counts = counted(called)
    sums = train(make_update(model, name, called, m=m, **rule), world)
    own = [weight.detach().clone() for weight in model.parameters()]
    world.mean_([buffer for buffer in model.buffers() if buffer.is_floating_point()])
    return {
        "model": model.state_dict(),
        "weights": own,
        "exchanges": len(counts),
        "loss": float(world.sum_(sums)[0]) / NUM_STEPS / NUM_IMAGES,
    }


def recorded_case(world, make, name):
    """Train without DistributedDataParallel, from recordings; return the weights and the recordings."""
    model, recorder = make(), TapeRecorder()
    passes = make_pass(model, weight_decay_in_loss=0.05, unsynced=nullcontext)
    update = make_update(model, name, passes=passes)
    gradients = FlatGradients(list(model.parameters()))
    update.replay = Replay(update.rule, update.statistics, gradients, recorder, world, refuse=pytest.fail)
    train(update, world)
    weights = [weight.detach().clone() for weight in model.parameters()]
    return {"weights": weights, "recordings": len(recorder.tapes)}


def sharded_case(world, make, name, m=M, **rule):
    """Train with fully_shard; a copy stops in the middle and goes on from whole tensors."""
    model = make()
    shard(model, world.size)
    update = make_update(model, name, m=m, **rule)
    places = [weight.to_local().data_ptr() for weight in model.parameters()]
    images, targets = share(world, *make_images())
    for step in range(NUM_STEPS):
        if step == 1:
            state = copy.deepcopy(
                {
                    "model": gathered(model.state_dict()),
                    "optimizer": gathered(update.rule.optimizer.state_dict()),
                }
            )
        update(images, targets, lr=0.1, step=step)
    stopped = make()
    shard(stopped, world.size)
    load_model(stopped, state["model"])
    again = make_update(stopped, name, m=m, **rule)
    optimizer = again.rule.optimizer
    optimizer.load_state_dict(sharded_like(optimizer, state["optimizer"]))
    for step in range(1, NUM_STEPS):
        again(images, targets, lr=0.1, step=step)
    for trained in (model, stopped):
        world.mean_([buffer for buffer in trained.buffers() if buffer.is_floating_point()])
    return {
        "model": gathered(model.state_dict()),
        "continued": gathered(stopped.state_dict()),
        "in place": places == [weight.to_local().data_ptr() for weight in model.parameters()],
        "largest shard": max(weight.to_local().numel() / weight.numel() for weight in model.parameters()),
    }


class Explosive(nn.Module):
    """A linear layer whose gradient overflows in the passes it is told to."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(192, 7)
        self.uphill, self.explodes_when_uphill = False, None

    def set_uphill(self, flag):
        self.uphill = flag

    def forward(self, images):
        logits = self.linear(images.flatten(1))
        if self.explodes_when_uphill is self.uphill:
            logits = logits + (logits - logits.detach()) * 1e38
        return logits


def overflow_case(world, uphill):
    """Make two updates in fp16; in the first, only the last process overflows in one of its passes."""
    model = Explosive()
    called = data_parallel(model)
    passes = make_pass(model, "fp16", called)
    sam = SAM(model.parameters(), torch.optim.SGD, rho=RHO, lr=0.1)
    update = Update(SAMRule(passes, sam, true_gradient=model.set_uphill), passes, M)
    images, targets = share(world, *make_images())
    kept = []
    for explodes in (world.rank == world.size - 1, False):
        model.explodes_when_uphill = uphill if explodes else None
        update(images.float(), targets, lr=0.1)
        kept.append((model.linear.weight.detach().clone(), update.scaler.get_scale()))
    return kept


def cases(world):
    """Return the results of all cases, by name."""
    found = {name: data_parallel_case(world, make_convolutions, name) for name in ("sgd", "sam")}
    if world.size == 2:
        found |= {
            f"{name}, recorded": recorded_case(world, make_convolutions, name) for name in ("sgd", "sam")
        }
        found |= {name: data_parallel_case(world, make_tanh, name) for name in ONE_PASS}
        found["functional_sam"] = data_parallel_case(world, make_tanh, "functional_sam")
        found["msam, sharded"] = sharded_case(world, make_tanh, "msam")
        shared = {"sync_ascent": True, "m": NUM_IMAGES // world.size}
        found["functional_sam, shared"] = data_parallel_case(world, make_tanh, "functional_sam", **shared)
        found["sam, shared"] = data_parallel_case(world, make_tanh, "sam", **shared)
        found["sam, shared, m"] = data_parallel_case(world, make_tanh, "sam", m=M // 2, sync_ascent=True)
        found["sam, shared, statistics"] = data_parallel_case(world, make_convolutions, "sam", **shared)
        several = {"sync_ascent": True, "m": M, "ascent_steps": 3, "ascent_fraction": 0.5}
        found["sam, shared, several"] = data_parallel_case(world, make_convolutions, "sam", **several)
        found["sam, sharded, several"] = sharded_case(world, make_convolutions, "sam", **several)
        found["sgd, sharded"] = sharded_case(world, make_tanh, "sgd")
        found["sam, sharded"] = sharded_case(world, make_tanh, "sam", **shared)
        found["sam, sharded, m"] = sharded_case(world, make_tanh, "sam", m=M // 2, sync_ascent=True)
        found["sam, sharded, statistics"] = sharded_case(world, make_convolutions, "sam", **shared)
        found["sam, sharded, adaptive"] = sharded_case(world, make_tanh, "sam", adaptive=True, **shared)
        found["sam, sharded, some"] = sharded_case(
            world, make_tanh, "sam", perturbed=lambda name: "bias" in name, **shared
        )
        found["overflow uphill"] = overflow_case(world, True)
        found["overflow at the end"] = overflow_case(world, False)
    return found


def work(rank, size, folder):
    """Do one process's part and leave the results in the folder."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    torch.save(cases(World(rank, size)), f"{folder}/{rank}.pt")
    close_process_group(0)


def start(size, folder):
    """Run all cases in this number of processes; return the results of each, by rank."""
    start_server()
    torch.multiprocessing.start_processes(work, (size, str(folder)), size, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]
