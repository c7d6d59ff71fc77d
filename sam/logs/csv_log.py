"""metrics.csv: one row per epoch."""

import csv
import io
import os
import pathlib
from collections.abc import Sequence
from typing import SupportsFloat

from sam.system.files import naming, replaced

COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "train_error_pct",
    "train_top5_error_pct",
    "train_clean_error_pct",
    "test_loss",
    "test_error_pct",
    "test_top5_error_pct",
    "perturbed_loss",
    "perturbed_error_pct",
    "loss_rise",
    "grad_norm",
    "cosine",
    "unperturbed",
    "passes",
    "seconds",
    "images_per_second",
)


class CsvLog:
    """Appends rows to a file. The file has complete rows only, even if the process is killed.

    Args:
        path: The file; replaced by restart().
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    def restart(self, rows: Sequence[dict[str, float]]) -> None:
        """Replace the file, in one step, by a header and these rows."""
        text = ",".join(COLUMNS) + "\n" + "".join(map(_line, rows))
        with replaced(self._path) as file:
            file.write(text)

    def log(self, row: dict[str, float]) -> None:
        """Append one row and force it to disk."""
        with naming(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())

    def advance(self, epoch: int, step: int, loss: SupportsFloat) -> None:
        """Ignore single updates."""

    def close(self) -> None:
        """Do nothing: the file is closed after every row."""


def _line(row: dict[str, float]) -> str:
    """Format a row; missing values stay empty."""
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writerow(row)
    return text.getvalue()
