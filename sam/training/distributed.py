"""The rank of this process, the number of processes, and the messages between them."""

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
from sam.system.processes import ProcessInfo

# Messages of the main process to the processes that wait for it.
AT_WORK, DONE, FAILED = range(3)
SECONDS_FOR_AN_END = 10


@dataclasses.dataclass(frozen=True)
class World:
    """The processes that share each batch, as seen from this one. A single process exchanges nothing."""

    rank: int = 0
    size: int = 1
    # How long a process waits for another process.
    patience: timedelta = timedelta(minutes=10)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and the messages to the user."""
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

    def joint_mean_(self, tensors: Sequence[Tensor]) -> None:
        """Do what mean_() does in one exchange, for tensors of one dtype and device."""
        if self.size > 1:
            joined = torch.cat([tensor.flatten() for tensor in tensors])
            self.mean_([joined])
            parts = joined.split([tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def average_(self, gradients: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes, rounded as DistributedDataParallel does."""
        if self.size > 1:
            for gradient in gradients:
                gradient /= self.size  # before the sum, which then cannot overflow
                distributed.all_reduce(gradient)

    def of_main(self, tensor: Tensor) -> Tensor:
        """Replace a tensor, in place, by the main process's tensor, and return it."""
        if self.size > 1:
            distributed.broadcast(tensor, src=0)
        return tensor

    def gathered(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of ranks; all processes must call it together."""
        values = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return whether the flag is set in any process; all processes must call it together."""
        if self.size == 1:
            return flag
        return bool(self.sum_(torch.tensor(float(flag), device=device)) > 0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block in the main process first, then in the other processes.

        Raises:
            SystemExit: With code 2, in the other processes, if the block failed in the main process. The main
                process raises the error itself.
        """
        if self.size == 1:
            yield
            return
        # A new group, because the block may use the other groups. It uses gloo (CPU): there a waiting process
        # gets an error at once if another process is gone.
        group: Any = distributed.new_group(backend="gloo", timeout=self.patience)
        if self.is_main:
            with _others_informed(group, self.patience.total_seconds() / 4):
                yield
        else:
            while (word := _agreed(AT_WORK, group)) == AT_WORK:
                pass
            if word == FAILED:
                raise SystemExit(2)
            yield
        distributed.destroy_process_group(group)


def _agreed(word: int, group: Any) -> int:
    """Return the largest word of all processes in the group."""
    words = torch.tensor(word)
    distributed.all_reduce(words, distributed.ReduceOp.MAX, group=group)
    return int(words)


@contextmanager
def _others_informed(group: Any, seconds: float) -> Iterator[None]:
    """Send AT_WORK to the waiting processes every `seconds` seconds, and DONE or FAILED after the block.

    The block may take longer than their timeout, for example for a download. If the waiting processes or the
    connection to them are lost, a signal interrupts the block with an error.
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
        if losses:  # raise again, because the block may have caught the error
            raise losses[0]
        _agreed(word, group)


def data_parallel(model: nn.Module) -> DistributedDataParallel:
    """Wrap a model so that its gradients are averaged over processes and its buffers are not synchronised."""
    # torch 2.14 renamed the argument.
    parameters = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    left_alone: dict[str, Any] = {name: False}
    return DistributedDataParallel(model, **left_alone)


@contextmanager
def joined_world(process: ProcessInfo, device: torch.device, timeout_minutes: float) -> Iterator[World]:
    """Connect to the other processes that torchrun or sam.run.launch started, if there are any.

    Args:
        process: The rank of this process and the number of processes.
        device: The device of this process.
        timeout_minutes: How long a process waits for another process.

    Raises:
        ProcessError: If another process or the connection to it is lost.
    """
    if process.size == 1:
        yield World()
        return
    patience = timedelta(minutes=timeout_minutes)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL exchanges Python objects through the current device
    try:
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
        yield World(process.rank, process.size, patience)
    except RuntimeError as error:
        if (loss := loss_of_a_peer(error, timeout_minutes)) is None:
            raise
        raise ProcessError(f"process of rank {process.rank} {loss}") from error


def loss_of_a_peer(error: RuntimeError, timeout_minutes: float) -> str | None:
    """Describe how this process lost another process; return None if the error has another cause."""
    text = str(error)
    of_store = (distributed.DistNetworkError, distributed.DistStoreError, distributed.DistBackendError)
    # gloo has no exception class of its own; its messages begin with the name of its source file.
    if not isinstance(error, of_store) and "gloo/transport" not in text:
        return None
    if "imed out" in text or "timeout" in text:
        return (
            "has received nothing from another process for "
            f"runtime.timeout_minutes={timeout_minutes:g}: the network between them is cut, or that process "
            "hangs"
        )
    return (
        "has lost the connection to another process: that process failed, it was ended, or its machine failed"
    )


def close_process_group(exit_code: int) -> None:
    """Close the connections to other processes, and end the threads of the connections.

    A thread that frees a tensor after the interpreter has ended aborts the process, so call this before. The
    caller must have dropped every object that holds a connection, such as a wrapped network.

    Args:
        exit_code: The exit code of this process if a connection cannot be closed in time.
    """
    if distributed.is_initialized():
        gc.collect()
        late = threading.Timer(SECONDS_FOR_AN_END, os._exit, [exit_code])
        late.daemon = True
        late.start()
        distributed.destroy_process_group()
        late.cancel()
