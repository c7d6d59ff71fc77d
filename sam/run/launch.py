"""Train one run in several processes on this machine; for the user they are one program.

    python train.py runtime=ddp runtime.processes=2 m=64

torch's elastic launcher starts new processes for each run, so a sweep works. Under torchrun, which has
started this process, nothing is launched. Only rank 0 writes files and prints. A process that fails writes a
note with the reason into a folder. The first note gives the cause: later processes fail because they lost
the first one.
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
from sam.system.processes import this_process
from sam.system.signals import OTHERS, STOPS, ForwardedStop, signals_passed_on

# The launcher checks its processes ten times a second; this is enough for it to see which one failed first.
SECONDS_BEFORE_FAILING = 2.0
SECONDS_FOR_AN_END = 10


@dataclass(frozen=True)
class WorkerTask:
    """The task of a process: a run's config, the command that continues it, the folder for failure notes."""

    config: TrainConfig
    command: str
    notes: pathlib.Path


def start(config: TrainConfig, command: str) -> dict[str, Any]:
    """Train one run in this process, or in new processes if the config asks for several.

    Args:
        config: A checked config.
        command: The command that continues this run, for the message to the user.

    Returns:
        The contents of result.json.

    Raises:
        ConfigError: As in sam.run.worker.run. Also if torchrun has started another number of processes, or
            if it may restart a run that has force=true.
        SystemExit: As in sam.run.worker.run. Also with code 1 if another process of this machine reports the
            failure.
    """
    wanted, process = config.runtime.processes or 1, this_process()
    if not process.is_launched and wanted > 1:
        return launch(config, command)
    if process.is_launched and config.runtime.processes not in (None, process.size):
        _end_unless_rank_0()
        raise ConfigError(
            f"runtime.processes={wanted}, but torchrun has started {process.size}; leave it null under "
            "torchrun, or start train.py without torchrun"
        )
    if config.force and process.may_restart:
        _end_unless_rank_0()
        raise ConfigError(
            "force=true under torchrun --max-restarts would delete the run at every restart; leave it out, "
            "and delete the run directory if the run must start again"
        )
    try:
        result, code = _run_here(config, command)
    except ProcessError:
        if process.local_rank == 0:
            raise
        # torchrun ends all processes of a machine as soon as one has failed: let local rank 0 print first.
        time.sleep(SECONDS_BEFORE_FAILING)
        sys.exit(1)
    _leave_other_processes(code)
    if result is None:
        sys.exit(code)
    return result


def _run_here(config: TrainConfig, command: str) -> tuple[dict[str, Any] | None, int]:
    """Do this process's part of a run.

    Returns:
        The contents of result.json, or None if the run was stopped; and the exit code.
    """
    from sam.run.worker import run

    try:
        return run(config, command), 0
    except SystemExit as ending:
        return None, int(ending.code or 0)


def _leave_other_processes(exit_code: int) -> None:
    """Close the connection to the other processes, after the run's objects here are gone."""
    from sam.training.distributed import close_process_group

    close_process_group(exit_code)


def refuse_sweep_under_torchrun() -> None:
    """Refuse a sweep under torchrun: each process would train all runs by itself.

    Raises:
        SystemExit: 2; rank 0 prints a message.
    """
    size = this_process().size
    if size == 1:
        return
    _end_unless_rank_0()
    print(
        f"error: -m under torchrun would run the whole sweep in each of {size} processes; start it without "
        f"torchrun: python train.py -m runtime=ddp runtime.processes={size} ...",
        file=sys.stderr,
        flush=True,
    )
    sys.exit(2)


def _end_unless_rank_0() -> None:
    """End this process unless it is rank 0, which prints the message."""
    if not this_process().is_main:
        # torchrun ends all processes as soon as one has failed: let rank 0 print first.
        time.sleep(SECONDS_BEFORE_FAILING)
        sys.exit(2)


def launch(config: TrainConfig, command: str) -> dict[str, Any]:
    """Train one run in runtime.processes new processes, and return the contents of result.json.

    Raises:
        ConfigError: If a process found a mistake of the user.
        ProcessError: If a process failed.
        SystemExit: 128 + the signal's number, if a signal in STOPS asked to stop; the state is saved.
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
            # Not the signals in STOPS: the launcher would give a process 30 seconds to save, then kill it.
            # If a process died, the launcher sends SIGTERM to the others. With gloo they end at once; with
            # NCCL they may hang until it kills them.
            signals_to_handle=",".join(number.name for number in OTHERS),
        )
        task = WorkerTask(config, command, pathlib.Path(folder))
        try:
            with _silent_logging():
                outcomes = elastic_launch(launcher, work)(task)
        except ChildFailedError as error:
            raise _cause_of_failure(task.notes, error, stop) from None
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from None
    if codes := [code for _, code in outcomes.values() if code]:
        raise SystemExit(stop.exit_code or max(codes))
    result: dict[str, Any] = outcomes[0][0]
    return result


def _check_devices(device: str, processes: int) -> None:
    """Make sure that each process gets its own device."""
    import torch

    gpus = torch.cuda.device_count()
    if device.startswith("cuda:"):
        raise ConfigError(f"runtime.device={device} is one GPU for {processes} processes; use cuda")
    if gpus and device in ("auto", "cuda") and processes > gpus:
        raise ConfigError(
            f"runtime.processes={processes}, but the number of GPUs here is {gpus}; lower it, or use "
            "runtime.device=cpu"
        )


def _cause_of_failure(notes: pathlib.Path, error: Any, stop: ForwardedStop) -> BaseException:
    """Return the exception to raise after a process failed, from the notes and the launcher's error."""
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
    """Suppress the launcher's own log messages; this module reports a failure in one message."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def work(task: WorkerTask) -> tuple[dict[str, Any] | None, int]:
    """Do one process's part of a run; the launcher calls this function in each process.

    Returns:
        The contents of result.json, or None if the run was stopped; and the exit code.
    """
    for number in STOPS:
        signal.signal(number, signal.SIG_DFL)  # nothing is trained yet, so there is nothing to save
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    try:
        # The exit code of a stop is returned, not raised: the launcher ends all processes when one fails, and
        # rank 0 may still be saving.
        outcome = _run_here(task.config, task.command)
    except Exception as error:
        _write_note_and_end(task.notes, error)
    signal.signal(signal.SIGINT, _end_if_launcher_died)
    _end_if_launcher_died()
    _leave_other_processes(outcome[1])
    return outcome


def _end_if_launcher_died(signal_number: int = 0, frame: FrameType | None = None) -> None:
    """End at once if the launcher has died: this process would wait for it at exit. Also handles SIGINT."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def _write_note_and_end(notes: pathlib.Path, error: Exception) -> NoReturn:
    """Write a note with the reason of this process's failure, and end the process."""
    moment = time.time()
    rank = this_process().rank
    # As in sam.config.mistakes, a file that cannot be written counts as a mistake of the user.
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
    # The alarm ends the process if a thread of a broken connection blocks it.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS_FOR_AN_END)
    if mistake is None:
        # This process may fail because another was killed, without a note: let the launcher see that first.
        time.sleep(SECONDS_BEFORE_FAILING)
    os._exit(1)  # not sys.exit(): threads of a broken connection sometimes abort the process then
