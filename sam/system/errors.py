"""The fault of one process among several that share a run. Imports no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ProcessError(RuntimeError):
    """A process of a run failed: which one and how, and its traceback, empty if it had no time for one."""

    def __init__(self, fault: str, worker_traceback: str = "") -> None:
        super().__init__(f"{fault}; the same command goes on from the last checkpoint, if there is one")
        self.fault = fault
        self.worker_traceback = worker_traceback

    def __reduce__(self) -> Any:
        return ProcessError, (self.fault, self.worker_traceback)


class ConfigError(ValueError):
    """A mistake of the user, told in full by its message: exit code 2, no traceback."""


class MissingDataset(FileNotFoundError):
    """A dataset that a library can fetch is not in its folder, and was not fetched."""


@contextmanager
def user_errors(key: str) -> Iterator[None]:
    """Turn what readers and constructors say about files and values into a ConfigError that names a key."""
    try:
        yield
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from error
