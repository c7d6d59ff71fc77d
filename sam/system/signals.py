"""Signals that ask a run to stop: it saves first, and then whoever asked is answered. Imports no torch.

A scheduler's library (submitit) that waits for its signal, to queue the job again, gets it once all is saved.
SIGTERM, by which Slurm preempts and cancels, it lets pass: Slurm itself ends the job, and queues it again if
it is preempted, but only if it is there to be ended.
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

# With these, schedulers tell that the time is up; Windows lacks them.
SCHEDULERS = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
STOPS = [signal.SIGINT, signal.SIGTERM, *SCHEDULERS]
SECONDS_OF_ONE_REQUEST = 2.0
# How long Slurm may take to end a job that it has told so, where all is saved at once.
SECONDS_TO_BE_ENDED = 3600.0


class StopRequest:
    """Remembers that a signal asked to stop; a second one stops at once.

    Unless it comes with the first: Ctrl-C reaches the processes of a terminal, and a launcher among them
    (torchrun, sam.run.launch) passes it on to its own once more.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._moment = 0.0

    def is_set(self) -> bool:
        """Return whether a signal came."""
        return self.signal_number != 0

    def handle(self, signal_number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if not self.is_set():
            self.signal_number, self._moment = signal_number, time.monotonic()
        elif time.monotonic() - self._moment > SECONDS_OF_ONE_REQUEST:
            raise SystemExit(128 + signal_number)


@contextmanager
def stopped_by_signals() -> Iterator[StopRequest]:
    """Let signals ask for a stop while a run trains; in the end, answer who asked."""
    request = StopRequest()
    before = {number: signal.signal(number, request.handle) for number in STOPS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        answer(request.signal_number, before)


def answer(signal_number: int, before: Mapping[int, Any]) -> None:
    """Let a scheduler's library do what it does at a signal, now that all is saved.

    Args:
        signal_number: Of the signal that came, 0 for none.
        before: The handlers from before this program took the signals, and now again in place.
    """
    if signal_number == signal.SIGTERM and "SLURM_JOB_ID" in os.environ and callable(before[signal_number]):
        signal.raise_signal(signal_number)
        time.sleep(SECONDS_TO_BE_ENDED)
    elif signal_number in SCHEDULERS and callable(before[signal_number]):
        try:
            signal.raise_signal(signal_number)
        except Exception as error:  # scontrol, say, is itself ended with the job that it queues again
            print(f"warning: {error}", file=sys.stderr, flush=True)


# What the launcher sets handlers for and leaves so.
OTHERS = [getattr(signal, name) for name in ("SIGHUP", "SIGQUIT") if hasattr(signal, name)]


class ForwardedStop:
    """Passes a request to stop on to the processes, which save and end; a second one ends all at once."""

    def __init__(self) -> None:
        self.signal_number = 0

    @property
    def exit_code(self) -> int:
        """Of this process, if a signal came; 0 if none did."""
        return 128 + self.signal_number if self.signal_number else 0

    def handle(self, signal_number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        is_first, self.signal_number = not self.signal_number, signal_number
        children = multiprocessing.active_children()
        for child in children:
            # From a terminal they have it already; see StopRequest.
            os.kill(child.pid or os.getpid(), signal.SIGINT)
        if not children or not is_first:
            raise SystemExit(self.exit_code)


@contextmanager
def signals_passed_on() -> Iterator[ForwardedStop]:
    """Take what asks to stop for the processes; and keep it from these until they can take it too.

    A process that starts inherits which signals are blocked. With these blocked it does not die over Ctrl-C
    in the middle of an import, with a traceback for a farewell. Blocked they are in the main thread alone:
    a thread that does nothing else receives them, and Python calls their handler in the main thread.
    """
    from multiprocessing import resource_tracker

    stop, done = ForwardedStop(), threading.Event()
    receiver = threading.Thread(target=done.wait, daemon=True)
    receiver.start()
    # It takes what is blocked with it, and ignores the others, which it would unblock here as it starts.
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
        answer(stop.signal_number, before)
