"""The rank of this process among those that share a run. Only this file reads torchrun's variables."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessInfo:
    """A process among all that share a run. The default is a single process.

    Attributes:
        rank: Number of the process, counted from 0.
        size: Number of processes.
        local_rank: Number of the process on its machine, counted from 0.
        local_size: Number of processes on its machine.
        is_launched: Whether torchrun or sam.run.launch started the process.
        may_restart: Whether torchrun starts the processes again after a failure.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    is_launched: bool = False
    may_restart: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints messages."""
        return self.rank == 0


def this_process() -> ProcessInfo:
    """Return what this process is, from the variables that torchrun sets."""
    return ProcessInfo(
        rank=int(os.environ.get("RANK", "0")),
        size=int(os.environ.get("WORLD_SIZE", "1")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        is_launched="WORLD_SIZE" in os.environ,
        may_restart=os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0",
    )
