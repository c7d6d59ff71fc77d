"""Which process of how many this is, and the few things processes tell each other."""

import dataclasses
import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclasses.dataclass(frozen=True)
class World:
    """This process among all that share a batch; a single process talks to nobody."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add the tensors of all processes in place, and return it."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes."""
        if self.size > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)
                tensor /= self.size

    def of_main(self, tensor: Tensor) -> Tensor:
        """Replace a tensor, in place, by that of the main process, and return it."""
        if self.size > 1:
            distributed.broadcast(tensor, src=0)
        return tensor

    def gathered(self, value: Any) -> list[Any]:
        """Return what each process has, in the order of their ranks; all must ask at the same point."""
        values = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return whether the flag is set in any process; all must ask at the same point."""
        if self.size == 1:
            return flag
        return bool(self.sum_(torch.tensor(float(flag), device=device)) > 0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Have the main process do what stands in this block, and only then the others.

        Raises:
            SystemExit: 2, in the others, if it failed in the main process, which is the one to tell why.
        """
        if self.size == 1:
            yield
            return
        # Of its own, since a download may take longer than a step may, and on the CPU, where those who wait
        # hear at once if a process is gone.
        group: Any = distributed.new_group(backend="gloo", timeout=timedelta(days=2))
        failed = [True]
        try:
            if not self.is_main:
                distributed.broadcast_object_list(failed, src=0, group=group)
                if failed[0]:
                    raise SystemExit(2)
            yield
            failed = [False]
        finally:
            if self.is_main:
                distributed.broadcast_object_list(failed, src=0, group=group)
        distributed.destroy_process_group(group)


def data_parallel(model: nn.Module) -> nn.Module:
    """Wrap a model so that its gradients are averaged over processes, and its buffers are left alone."""
    # torch 2.14 renamed the argument.
    parameters = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    left_alone: dict[str, Any] = {name: False}
    return DistributedDataParallel(model, **left_alone)


def start_world(device: torch.device) -> World:
    """Join the processes that torchrun started, or return a world of one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where processes exchange what is on no device
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(distributed.get_rank(), size)
