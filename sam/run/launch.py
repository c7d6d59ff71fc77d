"""From one command to several processes on this machine: started, stopped and told of as if they were one.

    python train.py runtime=ddp runtime.processes=2 m=64

torch's elastic launcher starts them anew for every run, so a sweep works; under torchrun, which has started
this process already, nothing is launched. Only rank 0 writes and speaks. Every process that fails leaves a
note of why in a folder, and the first note is the one to tell: the processes after it have only lost a peer.
"""

import json
import logging
import multiprocessing
import os
import pathlib
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

from sam.config.schema import TrainConfig
from sam.system.errors import ConfigError, ProcessError
from sam.system.files import replaced
from sam.system.processes import own_place
from sam.system.signals import OTHERS, STOPS, ForwardedStop, signals_passed_on

# Long enough for the launcher, which looks ten times a second, to see who died first.
SECONDS_BEFORE_FAILING = 2.0
SECONDS_FOR_AN_END = 10


@dataclass(frozen=True)
class WorkerTask:
    """What a process needs to know: the run, what continues it, and where to leave notes of failures."""

    config: TrainConfig
    command: str
    notes: pathlib.Path


def start(config: TrainConfig, command: str) -> dict[str, Any]:
    """Train one run here, or, if its config wants several processes and nobody started them, in new ones.

    Args:
        config: A checked config.
        command: What continues this run, for the message to the user.

    Returns:
        What result.json holds.

    Raises:
        ConfigError: As sam.run.worker.run, or if torchrun has started another number of processes, or would
            start anew with every restart.
        SystemExit: As sam.run.worker.run; 1 where another process of this machine reports a lost one.
    """
    wanted, place = config.runtime.processes or 1, own_place()
    if not place.is_launched and wanted > 1:
        return launch(config, command)
    if place.is_launched and config.runtime.processes not in (None, place.size):
        _only_rank_0_speaks()
        raise ConfigError(
            f"runtime.processes={wanted}, but torchrun has started {place.size}; leave it null under "
            "torchrun, or start train.py without torchrun"
        )
    if config.force and place.may_restart:
        _only_rank_0_speaks()
        raise ConfigError(
            "force=true under torchrun --max-restarts would throw the run away at every restart; leave it "
            "out, and delete the run directory if it is to start anew"
        )
    try:
        result, code = _run_here(config, command)
    except ProcessError:
        if place.local_rank == 0:
            raise
        time.sleep(SECONDS_BEFORE_FAILING)  # torchrun ends all of a machine as soon as one has ended
        sys.exit(1)
    _leave(code)
    if result is None:
        sys.exit(code)
    return result


def _run_here(config: TrainConfig, command: str) -> tuple[dict[str, Any] | None, int]:
    """Do this process's part of a run.

    Returns:
        What result.json holds, or None if the run was stopped; and the exit code.
    """
    from sam.run.worker import run

    try:
        return run(config, command), 0
    except SystemExit as ending:
        return None, int(ending.code or 0)


def _leave(exit_code: int) -> None:
    """Part from the other processes, once nothing of the run is left here."""
    from sam.training.distributed import leave_world

    leave_world(exit_code)


def refuse_sweep_under_torchrun() -> None:
    """End a sweep that torchrun has started: each of its processes would go through all jobs by itself.

    Raises:
        SystemExit: 2, from rank 0 with a message.
    """
    size = own_place().size
    if size == 1:
        return
    _only_rank_0_speaks()
    print(
        f"error: -m under torchrun would run the whole sweep in each of {size} processes; start it without "
        f"torchrun: python train.py -m runtime=ddp runtime.processes={size} ...",
        file=sys.stderr,
        flush=True,
    )
    sys.exit(2)


def _only_rank_0_speaks() -> None:
    """End all processes of torchrun but the first."""
    if not own_place().is_main:
        # torchrun ends all as soon as one has ended, maybe before the first has spoken.
        time.sleep(SECONDS_BEFORE_FAILING)
        sys.exit(2)


def launch(config: TrainConfig, command: str) -> dict[str, Any]:
    """Train one run in runtime.processes new processes; otherwise like start().

    Raises:
        ConfigError: If the processes found that machine, data or run directory do not allow it.
        ProcessError: If a process failed.
        SystemExit: 128 + the signal's number, if a signal of STOPS asked to stop; the state is saved.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    processes = config.runtime.processes or 1
    _check_devices(config.runtime.device, processes)
    with tempfile.TemporaryDirectory(prefix="sam-") as folder, signals_passed_on() as stop:
        launcher = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=pathlib.Path(folder).name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",  # a free port
            local_addr="127.0.0.1",
            max_restarts=0,
            start_method="spawn",
            # Not those that ask for a stop: it would wait 30 seconds for a save, and then kill. When one
            # died, the others have them; with gloo they end at once, with NCCL they may hang till then.
            signals_to_handle=",".join(number.name for number in OTHERS),
        )
        task = WorkerTask(config, command, pathlib.Path(folder))
        try:
            with _silent_logging():
                outcomes = elastic_launch(launcher, work)(task)
        except ChildFailedError as error:
            raise _told_by(task.notes, error, stop) from None
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from None
    if codes := [code for _, code in outcomes.values() if code]:
        raise SystemExit(stop.exit_code or max(codes))
    result: dict[str, Any] = outcomes[0][0]
    return result


def _check_devices(device: str, processes: int) -> None:
    """Make sure that each process finds a device of its own."""
    import torch

    gpus = torch.cuda.device_count()
    if device.startswith("cuda:"):
        raise ConfigError(f"runtime.device={device} is one GPU for {processes} processes; say cuda")
    if gpus and device in ("auto", "cuda") and processes > gpus:
        raise ConfigError(
            f"runtime.processes={processes}, but the GPUs of this machine are {gpus}; lower it, or say "
            "runtime.device=cpu"
        )


def _told_by(notes: pathlib.Path, error: Any, stop: ForwardedStop) -> BaseException:
    """Return what to raise for a run of which a process failed; the launcher knows which ended first."""
    rank, failure = error.get_first_failure()
    found = [json.loads(path.read_text(encoding="utf-8")) for path in notes.glob("*.json")]
    died = failure.exitcode < 0 and not (notes / f"{rank}.json").exists()
    if stop.exit_code and (died or not found):
        return SystemExit(stop.exit_code)
    if died:
        return ProcessError(f"process of rank {rank} died of {signal.Signals(-failure.exitcode).name}")
    if not found:
        return ProcessError(f"process of rank {rank} ended with exit code {failure.exitcode}")
    first = min(found, key=lambda note: note["moment"])
    if first["mistake"] is None:
        return ProcessError(first["fault"], first["traceback"])
    mistake = ConfigError(first["mistake"])
    mistake.__cause__ = RuntimeError(f"in the process of rank {first['rank']}:\n{first['traceback']}")
    return mistake


@contextmanager
def _silent_logging() -> Iterator[None]:
    """Keep the launcher's own reports of what this module tells in one message."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def work(task: WorkerTask) -> tuple[dict[str, Any] | None, int]:
    """Do one process's part of a run; the launcher calls this in each.

    Returns:
        What result.json holds, or None if the run was stopped; and the exit code.
    """
    for number in STOPS:
        signal.signal(number, signal.SIG_DFL)  # nothing is trained yet, so there is nothing to save
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    try:
        # Of a stop the code is returned, too: the launcher ends the others when one fails, and rank 0 may
        # still be saving.
        outcome = _run_here(task.config, task.command)
    except Exception as error:
        _fail(task.notes, error)
    signal.signal(signal.SIGINT, _end_if_alone)
    _end_if_alone()
    _leave(outcome[1])
    return outcome


def _end_if_alone(signal_number: int = 0, frame: FrameType | None = None) -> None:
    """End at once if the launcher is gone, which would otherwise say when to; SIGINT tells of that too."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def _fail(notes: pathlib.Path, error: Exception) -> NoReturn:
    """Leave a note of why this process fails, and end it."""
    moment = time.time()
    rank = own_place().rank
    # As in sam.config.mistakes, where a file that cannot be written is the user's affair too.
    mistake = str(error) if isinstance(error, (ConfigError, OSError)) else None
    note = {
        "rank": rank,
        "moment": moment,
        "mistake": mistake,
        "fault": error.fault if isinstance(error, ProcessError) else f"process of rank {rank} failed",
        "traceback": "" if isinstance(error, ProcessError) else traceback.format_exc(),
    }
    with replaced(notes / f"{rank}.json") as file:
        json.dump(note, file)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Surely, even if a thread of a broken connection holds up an orderly end.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS_FOR_AN_END)
    if mistake is None:
        # Maybe this one has only lost a peer that was killed, without a note: let that be seen first.
        time.sleep(SECONDS_BEFORE_FAILING)
    os._exit(1)  # at an orderly end, threads of a broken connection abort the process now and then
