"""SAM with DistributedDataParallel and gradient accumulation, in any number of processes.

Watch out for no_sync() in the last backward of the first pass. With it, each process has its own eps (m-SAM,
as in the paper). Without it, all use the eps of their mean gradient. The second pass must always exchange.

Needs `pip install .` in this repository. In two processes: torchrun --nproc-per-node 2 FILE
"""

import os
from contextlib import nullcontext

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sam.optim import SAM


def one_pass(model: DistributedDataParallel, batches: list[tuple[Tensor, Tensor]], exchange: bool) -> float:
    """Accumulate the gradients of the micro-batches; processes exchange them at most once, at the end."""
    for number, (inputs, targets) in enumerate(batches, start=1):
        with nullcontext() if exchange and number == len(batches) else model.no_sync():
            loss = nn.functional.cross_entropy(model(inputs), targets)
            (loss / len(batches)).backward()
    return loss.item()


def train(model: nn.Module, batches: list[tuple[Tensor, Tensor]], own_eps: bool = False) -> list[float]:
    """Train with two micro-batches per update and return the losses of the first passes."""
    parallel = DistributedDataParallel(model)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    losses = []
    for start in range(0, len(batches), 2):
        micro_batches = batches[start : start + 2]
        losses.append(one_pass(parallel, micro_batches, exchange=not own_eps))
        optimizer.first_step()  # to w + eps
        one_pass(parallel, micro_batches, exchange=True)
        optimizer.second_step()  # back to w, then SGD's step
    return losses


def main() -> list[float]:
    """Train on points whose class is the largest of their first three coordinates."""
    if "RANK" in os.environ:  # torchrun sets it
        distributed.init_process_group("gloo")
    else:
        distributed.init_process_group("gloo", init_method="tcp://localhost:0", rank=0, world_size=1)
    torch.manual_seed(distributed.get_rank())  # other points in each process; DDP makes the weights equal
    points = torch.randn(120, 64, 10)
    batches = [(batch, batch[:, :3].argmax(dim=1)) for batch in points]
    losses = train(nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3)), batches)
    if distributed.get_rank() == 0:
        print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    distributed.destroy_process_group()
    return losses


if __name__ == "__main__":
    main()
