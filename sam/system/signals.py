"""Signals that ask a run to stop: the run saves its state first. Imports no torch.

A scheduler's library (submitit) may have its own handler, which queues the job again. It gets the signal
after the state is saved. Slurm preempts and cancels jobs with SIGTERM, for which submitit does nothing: Slurm
itself ends the job, and queues a preempted job again. For this, the job must still run when Slurm ends it.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Schedulers send these when the time of a job is over. Windows does not have them.
SCHEDULERS = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
STOPS = [signal.SIGINT, signal.SIGTERM, *SCHEDULERS]
SECONDS_OF_ONE_REQUEST = 2.0
# The time to wait, after the state is saved, until Slurm ends a job that it sent SIGTERM.
SECONDS_TO_BE_ENDED = 3600.0


class StopRequest:
    """Stores that a signal asked to stop; a second signal stops the process at once.

    A second signal within 2 seconds is ignored: a terminal sends Ctrl-C to all its processes, and a launcher
    (torchrun, sam.run.launch) sends it to its processes once more.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._moment = 0.0

    def is_set(self) -> bool:
        """Return whether a signal came."""
        return self.signal_number != 0

    def handle(self, signal_number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if not self.is_set():
            self.signal_number, self._moment = signal_number, time.monotonic()
        elif time.monotonic() - self._moment > SECONDS_OF_ONE_REQUEST:
            raise SystemExit(128 + signal_number)


@contextmanager
def stopped_by_signals() -> Iterator[StopRequest]:
    """While a run trains, turn signals into a stop request; at the end, resend the signal (see resend)."""
    request = StopRequest()
    before = {number: signal.signal(number, request.handle) for number in STOPS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        resend(request.signal_number, before)


def resend(signal_number: int, before: Mapping[int, Any]) -> None:
    """Raise a stop signal a second time, for the handler of a scheduler's library, if there is one.

    Args:
        signal_number: The signal that asked to stop; 0 for none.
        before: The handlers from before this program's; the caller must have installed them again.
    """
    if signal_number == signal.SIGTERM and "SLURM_JOB_ID" in os.environ and callable(before[signal_number]):
        signal.raise_signal(signal_number)
        time.sleep(SECONDS_TO_BE_ENDED)
    elif signal_number in SCHEDULERS and callable(before[signal_number]):
        try:
            signal.raise_signal(signal_number)
        except Exception as error:  # for example, scontrol ends together with the job that it queues again
            print(f"warning: {error}", file=sys.stderr, flush=True)


# torch's launcher sets handlers for these and does not restore the old ones.
OTHERS = [getattr(signal, name) for name in ("SIGHUP", "SIGQUIT") if hasattr(signal, name)]


class ForwardedStop:
    """Sends SIGINT to the processes of a run, which save and end; a second signal ends this process."""

    def __init__(self) -> None:
        self.signal_number = 0

    @property
    def exit_code(self) -> int:
        """The exit code of this process after a signal; 0 if there was none."""
        return 128 + self.signal_number if self.signal_number else 0

    def handle(self, signal_number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        is_first, self.signal_number = not self.signal_number, signal_number
        children = multiprocessing.active_children()
        for child in children:
            # After Ctrl-C in a terminal, they get the signal twice; see StopRequest.
            os.kill(child.pid or os.getpid(), signal.SIGINT)
        if not children or not is_first:
            raise SystemExit(self.exit_code)


@contextmanager
def signals_passed_on() -> Iterator[ForwardedStop]:
    """Forward signals that ask to stop to the processes; new processes start with these signals blocked.

    A new process inherits the blocked signals. So Ctrl-C cannot end it with a traceback in the middle of an
    import. Only the main thread here blocks the signals. An idle thread receives them, and Python calls their
    handlers in the main thread.
    """
    from multiprocessing import resource_tracker

    stop, done = ForwardedStop(), threading.Event()
    receiver = threading.Thread(target=done.wait, daemon=True)
    receiver.start()
    # The tracker inherits the blocked signals. It ignores SIGINT and SIGTERM itself; its start would unblock
    # them here if they were blocked already.
    signal.pthread_sigmask(signal.SIG_BLOCK, SCHEDULERS)
    resource_tracker.ensure_running()
    before = {number: signal.getsignal(number) for number in (*STOPS, *OTHERS)}
    try:
        for number in STOPS:
            signal.signal(number, stop.handle)
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        yield stop
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        for number, handler in before.items():
            signal.signal(number, handler)
        done.set()
        receiver.join()
        resend(stop.signal_number, before)
