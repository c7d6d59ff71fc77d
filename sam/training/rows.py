"""The rows of metrics.csv: the means of an epoch, and all rows of a run as one compact table."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

Row = dict[str, float]
WHOLE_NUMBERS = ("epoch", "step")


@dataclasses.dataclass(eq=False)
class Rows(Sequence[Row]):
    """The rows of a run so far, as one table of numbers.

    Every checkpoint holds all rows. To save ten thousand rows as dictionaries would take longer than to train
    a small network.
    """

    columns: list[str] = dataclasses.field(default_factory=list)
    values: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))
    # Marks the columns that a row has. nan cannot mark a missing value, because a loss may be nan.
    given: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        values, given = self.values[index].tolist(), self.given[index].tolist()
        return {
            name: int(value) if name in WHOLE_NUMBERS else value
            for name, value, is_given in zip(self.columns, values, given, strict=True)
            if is_given
        }

    def append(self, row: Row) -> None:
        """Add a row; it may have other column names than the rows before it."""
        new = [name for name in row if name not in self.columns]
        self.columns += new
        self.values = pad(self.values, (0, len(new), 0, 1))
        self.given = pad(self.given, (0, len(new), 0, 1))
        for column, name in enumerate(self.columns):
            if name in row:
                self.values[-1, column], self.given[-1, column] = row[name], True


def train_means(sums: dict[str, float]) -> Row:
    """Return mean losses, errors in percent, and SAM's diagnostics, from a rule's sums of an epoch."""
    num_images = sums["num_images"]
    row = {
        "train_loss": sums["loss"] / num_images,
        "train_error_pct": 100 * sums["errors"] / num_images,
        "train_top5_error_pct": 100 * sums["top5_errors"] / num_images,
    }
    if sums["num_clean"]:
        row["train_clean_error_pct"] = 100 * sums["clean_errors"] / sums["num_clean"]
    if "perturbed_loss" not in sums:
        return row
    if num_perturbed := sums["num_perturbed_images"]:
        row["perturbed_loss"] = sums["perturbed_loss"] / num_perturbed
        row["perturbed_error_pct"] = 100 * sums["perturbed_errors"] / num_perturbed
    means = {"loss_rise": "num_rise_images", "grad_norm": "num_perturbed", "cosine": "num_cosines"}
    for name, count in means.items():
        if sums[count]:
            row[name] = sums[name] / sums[count]
    # The number of micro-batches whose ascent gradient was not finite.
    row["unperturbed"] = sums["num_unperturbed"]
    return row


def diverged(row: Row) -> bool:
    """Return whether a loss is not finite; a run with epochs=0 has no train_loss."""
    return not all(math.isfinite(row[key]) for key in ("train_loss", "test_loss") if key in row)
