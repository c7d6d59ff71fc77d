"""Which process of how many this is, and the few things processes tell each other."""

import dataclasses
import gc
import inspect
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sam.system.errors import ProcessError
from sam.system.processes import Place

# What the main process says to those that wait for it.
AT_WORK, DONE, FAILED = range(3)
SECONDS_FOR_AN_END = 10


@dataclasses.dataclass(frozen=True)
class World:
    """This process among all that share a batch; a single process talks to nobody."""

    rank: int = 0
    size: int = 1
    # How long a process waits for another one.
    patience: timedelta = timedelta(minutes=10)

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
        # Of its own, since what the block does may use the others, and on the CPU, where those who wait hear
        # at once if a process is gone.
        group: Any = distributed.new_group(backend="gloo", timeout=self.patience)
        if self.is_main:
            with _heard_at_work(group, self.patience.total_seconds() / 4):
                yield
        else:
            while (word := _agreed(AT_WORK, group)) == AT_WORK:
                pass
            if word == FAILED:
                raise SystemExit(2)
            yield
        distributed.destroy_process_group(group)


def _agreed(word: int, group: Any) -> int:
    """Return the largest word that a process of the group says."""
    words = torch.tensor(word)
    distributed.all_reduce(words, distributed.ReduceOp.MAX, group=group)
    return int(words)


@contextmanager
def _heard_at_work(group: Any, seconds: float) -> Iterator[None]:
    """Tell those who wait, every so many seconds, that this process is at work, and in the end how it ended.

    A download may take longer than they would wait for anything else. If they are gone, or the way to them,
    the block ends where it is.
    """
    ended, losses = threading.Event(), list[RuntimeError]()

    def tell() -> None:
        try:
            while not ended.wait(seconds):
                _agreed(AT_WORK, group)
        except RuntimeError as error:
            losses.append(error)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    def give_up(signal_number: int, frame: FrameType | None) -> NoReturn:
        raise losses[0]

    before = signal.signal(signal.SIGALRM, give_up)
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    word = FAILED
    try:
        yield
        word = DONE
    finally:
        ended.set()
        teller.join()
        signal.signal(signal.SIGALRM, before)
        if losses:  # the block may have taken the error for one of its own
            raise losses[0]
        _agreed(word, group)


def data_parallel(model: nn.Module) -> DistributedDataParallel:
    """Wrap a model so that its gradients are averaged over processes, and its buffers are left alone."""
    # torch 2.14 renamed the argument.
    parameters = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    left_alone: dict[str, Any] = {name: False}
    return DistributedDataParallel(model, **left_alone)


@contextmanager
def joined_world(place: Place, device: torch.device, timeout_minutes: float) -> Iterator[World]:
    """Join the processes that torchrun or sam.run.launch started; without any, it is a world of one.

    Args:
        place: The place of this process among them.
        device: The device of this process.
        timeout_minutes: How long a process waits for another one.

    Raises:
        ProcessError: If another process, or the way to it, is gone.
    """
    if place.size == 1:
        yield World()
        return
    patience = timedelta(minutes=timeout_minutes)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where processes exchange what is on no device
    try:
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
        yield World(place.rank, place.size, patience)
    except RuntimeError as error:
        if (loss := loss_of_a_peer(error, timeout_minutes)) is None:
            raise
        raise ProcessError(f"process of rank {place.rank} {loss}") from error


def loss_of_a_peer(error: RuntimeError, timeout_minutes: float) -> str | None:
    """Say how a process lost another one, None if the error has another cause."""
    text = str(error)
    of_store = (distributed.DistNetworkError, distributed.DistStoreError, distributed.DistBackendError)
    # gloo raises errors of no kind of their own, which begin with the source file.
    if not isinstance(error, of_store) and "gloo/transport" not in text:
        return None
    if "imed out" in text or "timeout" in text:
        return (
            f"has heard nothing of another one for runtime.timeout_minutes={timeout_minutes:g}: the network "
            "between them is cut, or that one hangs"
        )
    return "has lost the connection to another one, which failed, was ended, or whose machine did"


def leave_world(exit_code: int) -> None:
    """End the connections to other processes and their threads, before the interpreter ends.

    A thread that frees a tensor later than that aborts the process. Whatever holds a connection, such as a
    wrapped network, has to be out of use.

    Args:
        exit_code: Of this process, which ends at once if a connection cannot be ended.
    """
    gc.collect()
    if distributed.is_initialized():
        late = threading.Timer(SECONDS_FOR_AN_END, os._exit, [exit_code])
        late.daemon = True
        late.start()
        distributed.destroy_process_group()
        late.cancel()
