"""Warnings during a run: the loss is not finite any more, or the network has learned nothing."""

import math
import sys
import time
from collections.abc import Sequence
from typing import SupportsFloat

from tqdm import tqdm

# To read the loss, the main process waits for the device, so this happens rarely.
SECONDS_BETWEEN_LOOKS = 10.0
# This number of epochs in a row at chance is no accident.
EPOCHS_AT_CHANCE = 3
# An error counts as chance if it is below chance by at most this share of the distance from chance to the
# nearer of 0 and 100 %.
TOLERANCE = 0.1


class TroubleLog:
    """Warns once if the training loss is not finite, and once if the training error stays at chance.

    At chance: in three epochs in a row, the training error was at least c - 0.1 min(c, 100 - c), where c is
    the error of a constant prediction. A rho or a learning rate that is too large leads to such a network.

    Args:
        label: Name of the run.
        chance_pct: Error of always predicting the most frequent training label, in percent.
        advice: What to change, in one clause.
    """

    def __init__(self, label: str, chance_pct: float, advice: str) -> None:
        self._label = label
        self._chance_pct = chance_pct
        self._lowest_pct = chance_pct - TOLERANCE * min(chance_pct, 100 - chance_pct)
        self._advice = advice
        self._errors_pct: list[float] = []
        self._has_warned_of_loss = self._has_warned_of_chance = False
        self._last_look = time.monotonic()

    def restart(self, rows: Sequence[dict[str, float]]) -> None:
        """Remember the training errors of the epochs that are complete."""
        self._errors_pct = [row["train_error_pct"] for row in rows if "train_error_pct" in row]

    def log(self, row: dict[str, float]) -> None:
        """Warn if the training error stays at chance."""
        if "train_error_pct" not in row:
            return
        self._errors_pct.append(row["train_error_pct"])
        recent = self._errors_pct[-EPOCHS_AT_CHANCE:]
        if len(recent) == EPOCHS_AT_CHANCE and min(recent) >= self._lowest_pct:
            self._warn_of_chance(row)

    def advance(self, epoch: int, step: int, loss: SupportsFloat) -> None:
        """Warn if the loss is not finite; it is read every ten seconds."""
        if self._has_warned_of_loss or time.monotonic() - self._last_look < SECONDS_BETWEEN_LOOKS:
            return
        self._last_look = time.monotonic()
        if not math.isfinite(float(loss)):
            self._has_warned_of_loss = True
            self._warn(
                f"the training loss is not finite (epoch {epoch + 1}, update {step}); the run will end after "
                "this epoch as diverged"
            )

    def close(self) -> None:
        """Do nothing."""

    def _warn_of_chance(self, row: dict[str, float]) -> None:
        if self._has_warned_of_chance or self._has_warned_of_loss or not math.isfinite(row["train_loss"]):
            return
        self._has_warned_of_chance = True
        self._warn(
            f"the network has learned nothing in the last {EPOCHS_AT_CHANCE} epochs: after epoch "
            f"{row['epoch']:.0f}, the training error is {row['train_error_pct']:.2f} %, and a constant "
            f"prediction has {self._chance_pct:.2f} %"
        )

    def _warn(self, fault: str) -> None:
        tqdm.write(f"warning: {self._label}: {fault}; {self._advice}", file=sys.stderr)
        sys.stderr.flush()
