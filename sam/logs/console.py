"""The console log of a run: a progress bar on a terminal, otherwise one line per epoch."""

import os
import sys
from collections.abc import Sequence
from typing import SupportsFloat

from tqdm import tqdm


class ConsoleLog:
    """A progress bar over all updates of the run, with the errors of the last epoch.

    Args:
        label: Name of the run.
        epochs: Number of epochs.
        steps_per_epoch: Number of updates per epoch.
        split: Name of the evaluated split: test or validation.
    """

    def __init__(self, label: str, epochs: int, steps_per_epoch: int, split: str = "test") -> None:
        self._split = split
        self._label = label
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._bar: tqdm[None] | None = None

    def restart(self, rows: Sequence[dict[str, float]]) -> None:
        """Show the bar at the position after these rows."""
        done = min(len(rows), self._epochs)  # a run with epochs=0 also has a row
        if sys.stderr.isatty():
            total = self._epochs * self._steps_per_epoch
            initial = done * self._steps_per_epoch
            self._bar = tqdm(
                total=total,
                initial=initial,
                desc=self._label.split("/")[-1],
                bar_format="{desc} {percentage:3.0f}%|{bar:12}| {elapsed}<{remaining}{postfix}",
                dynamic_ncols=True,
            )
        if rows:
            say(f"{self._label}: goes on after epoch {done} of {self._epochs}")

    def log(self, row: dict[str, float]) -> None:
        """Show the errors of an epoch."""
        train = f"train {row['train_error_pct']:.2f} %, " if "train_error_pct" in row else ""
        errors = f"{train}{self._split} {row['test_error_pct']:.2f} %"
        if self._bar is not None:
            self._bar.set_postfix_str(f"epoch {row['epoch']:.0f}: {errors}")
        else:
            speed = f", {row['images_per_second']:.0f} images/s" if "images_per_second" in row else ""
            say(f"{self._label}: epoch {row['epoch']:.0f} of {self._epochs}, error {errors}{speed}")

    def advance(self, epoch: int, step: int, loss: SupportsFloat) -> None:
        """Move the bar to a step of an epoch."""
        if self._bar is not None:
            self._bar.update(epoch * self._steps_per_epoch + step - self._bar.n)

    def close(self) -> None:
        """Leave the finished bar on the screen."""
        if self._bar is not None:
            self._bar.close()


def say(text: str) -> None:
    """Print a line; print nothing more if the reader has closed the pipe, such as `| head`."""
    try:
        tqdm.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (it stays open to the end)
