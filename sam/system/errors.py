"""The errors that the user sees without a traceback. Imports no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ProcessError(RuntimeError):
    """A process of a run failed.

    Args:
        fault: The process and its failure, in one line.
        worker_traceback: The traceback of the process; empty if it wrote none.
    """

    def __init__(self, fault: str, worker_traceback: str = "") -> None:
        super().__init__(f"{fault}; the same command goes on from the last checkpoint, if there is one")
        self.fault = fault
        self.worker_traceback = worker_traceback

    def __reduce__(self) -> Any:
        return ProcessError, (self.fault, self.worker_traceback)


class ConfigError(ValueError):
    """A mistake of the user. The program prints the message, without a traceback, and exits with code 2."""


class MissingDataset(FileNotFoundError):
    """A dataset that could be downloaded is not in its folder, and was not downloaded."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the name of its type if it has no text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def user_errors(key: str) -> Iterator[None]:
    """Turn the errors of readers and constructors into a ConfigError that names a key."""
    try:
        yield
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from error
