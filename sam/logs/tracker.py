"""A log for trackio and for wandb, which have the same three functions: init, log and finish."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

from sam.logs.tensorboard import curves
from sam.system.errors import ConfigError, first_line


def import_tracker(name: str) -> Any:
    """Return the module of a tracker.

    Args:
        name: trackio or wandb.

    Raises:
        ConfigError: If the package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ConfigError(
            f"logger={name}: the package {name} is not installed; install it with pip install {name}, or "
            "leave logger out"
        ) from error


class TrackerLog:
    """Sends every row to a new run of a tracker; a continued run sends its earlier rows again.

    Args:
        name: trackio or wandb.
        project: Name of the tracker's project.
        run: Name of the run in the project.
        settings: The hyperparameters of the run.

    Raises:
        ConfigError: If the package is not installed.
    """

    def __init__(self, name: str, project: str, run: str, settings: Mapping[str, float | str]) -> None:
        self._name = name
        self._tracker = import_tracker(name)
        self._start = {"project": project, "name": run, "config": dict(settings)}
        self._is_open = False

    def restart(self, rows: Sequence[dict[str, float]]) -> None:
        """Start a run with these rows.

        Raises:
            ConfigError: If the tracker cannot start, for example because nobody is logged in.
        """
        try:
            self._tracker.init(**self._start)
        except Exception as error:  # each tracker has its own classes, and those of its HTTP library
            raise ConfigError(
                f"logger={self._name}: {self._name} did not start ({first_line(error)}); log in, make it "
                "work offline, or leave logger out"
            ) from error
        self._is_open = True
        for row in rows:
            self.log(row)

    def log(self, row: dict[str, float]) -> None:
        """Send one row."""
        self._tracker.log(curves(row), step=int(row["epoch"]))

    def advance(self, epoch: int, step: int, loss: SupportsFloat) -> None:
        """Ignore single updates."""

    def close(self) -> None:
        """End the tracker's run."""
        if self._is_open:
            self._tracker.finish()
