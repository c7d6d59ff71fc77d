"""TensorBoard: the curves of metrics.csv against the epoch, a row of the HParams table, and pictures."""

import pathlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import SupportsFloat

from PIL import Image

from sam.logs.tensorboard_adapter import EventFile

# TensorBoard makes one group of charts per prefix.
GROUPS = {"train_": "train/", "test_": "test/"}
# The HParams table also shows the last value of these curves.
TABLE_METRICS = ("test/error_pct", "test/loss", "train/error_pct", "train/loss")


class TensorBoardLog:
    """Writes every number of a row as a scalar.

    Args:
        folder: Folder of the event files.
        hyperparameters: A row of the HParams table; the values are numbers, strings and booleans.
        pictures: Folder of PNG files named NAME-epoch<k>-....png; log() adds the new ones.
    """

    def __init__(
        self, folder: pathlib.Path, hyperparameters: Mapping[str, float | str], pictures: pathlib.Path
    ) -> None:
        self._folder = folder
        self._hyperparameters = dict(hyperparameters)
        self._pictures = pictures
        self._shown: set[pathlib.Path] = set()
        self._events: EventFile | None = None

    def restart(self, rows: Sequence[dict[str, float]]) -> None:
        """Delete old event files, and start a new one with these rows."""
        for old in self._folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._events = EventFile(self._folder)
        self._events.add_hyperparameters(self._hyperparameters, TABLE_METRICS)
        for row in rows:
            self._add(row)
        self._events.flush()

    def log(self, row: dict[str, float]) -> None:
        """Write one row."""
        self._add(row)
        self._show_new_pictures()
        self._opened.flush()

    def advance(self, epoch: int, step: int, loss: SupportsFloat) -> None:
        """Ignore single updates."""

    def close(self) -> None:
        """Close the event file."""
        if self._events is not None:
            with closing(self._events):
                self._show_new_pictures()

    @property
    def _opened(self) -> EventFile:
        assert self._events is not None, "call restart() first"
        return self._events

    def _add(self, row: dict[str, float]) -> None:
        for tag, value in curves(row).items():
            self._opened.add_scalar(tag, int(row["epoch"]), value)

    def _show_new_pictures(self) -> None:
        for path in sorted(set(self._pictures.glob("*-epoch*.png")) - self._shown):
            self._shown.add(path)
            try:
                picture = _picture(path)
            except OSError:  # an unreadable picture must not stop the training
                continue
            self._opened.add_png(*picture)


def curves(row: Mapping[str, float]) -> dict[str, float]:
    """Return the value of each curve in a row, by a name such as train/loss."""
    named = {}
    for key, value in row.items():
        if key not in ("epoch", "step"):
            prefix = next((prefix for prefix in GROUPS if key.startswith(prefix)), "")
            named[GROUPS.get(prefix, "other/") + key.removeprefix(prefix)] = value
    return named


def append_picture(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Write a picture of an ended run to a new event file.

    Args:
        folder: Folder of the event files.
        path: A file NAME-epoch<k>-....png; NAME becomes the tag, k the step.
    """
    with closing(EventFile(folder, f".{path.stem}")) as events:
        events.add_png(*_picture(path))


def _picture(path: pathlib.Path) -> tuple[str, int, bytes, tuple[int, int]]:
    """Return a picture's tag and step, the bytes of its file, and its width and height."""
    name, _, rest = path.stem.partition("-epoch")
    epoch, _, settings = rest.partition("-")
    with Image.open(path) as picture:
        size = picture.size
    return f"{name}/{settings}", int(epoch.partition("step")[0]), path.read_bytes(), size
