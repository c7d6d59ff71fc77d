"""The fault of one process among several that share a run. Imports no torch."""

from typing import Any


class ProcessError(RuntimeError):
    """A process of a run failed: which one and how, and its traceback, empty if it had no time for one."""

    def __init__(self, fault: str, worker_traceback: str = "") -> None:
        super().__init__(f"{fault}; the same command goes on from the last checkpoint, if there is one")
        self.fault = fault
        self.worker_traceback = worker_traceback

    def __reduce__(self) -> Any:
        return ProcessError, (self.fault, self.worker_traceback)
