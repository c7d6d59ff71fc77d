"""Signals to a process that has started others: what asks to stop goes on to them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sam.stops import SCHEDULERS, STOPS, answer

# What the launcher sets handlers for and leaves so.
OTHERS = [getattr(signal, name) for name in ("SIGHUP", "SIGQUIT") if hasattr(signal, name)]


class Stop:
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
            # From a terminal they have it already; see sam.stops.StopRequest.
            os.kill(child.pid or os.getpid(), signal.SIGINT)
        if not children or not is_first:
            raise SystemExit(self.exit_code)


@contextmanager
def signals_passed_on() -> Iterator[Stop]:
    """Take what asks to stop for the processes; and keep it from these until they can take it too.

    A process that starts inherits which signals are blocked. With these blocked it does not die over Ctrl-C
    in the middle of an import, with a traceback for a farewell. Blocked they are in the main thread alone:
    a thread that does nothing else receives them, and Python calls their handler in the main thread.
    """
    from multiprocessing import resource_tracker

    stop, done = Stop(), threading.Event()
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
