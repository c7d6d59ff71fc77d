"""Signals that ask a run to stop: it saves first, and then whoever asked is answered. Imports no torch.

A scheduler's library (submitit) that waits for its signal, to queue the job again, gets it once all is saved.
SIGTERM, by which Slurm preempts and cancels, it lets pass: Slurm itself ends the job, and queues it again if
it is preempted, but only if it is there to be ended.
"""

import os
import signal
import sys
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
    (torchrun, sam.launch) passes it on to its own once more.
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
