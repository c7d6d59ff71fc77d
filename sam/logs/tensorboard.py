"""TensorBoard: the curves of metrics.csv against the epoch, a row of the HParams table, and pictures."""

import pathlib
from collections.abc import Mapping, Sequence
from contextlib import suppress

from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import FileWriter, SummaryWriter
from torch.utils.tensorboard.summary import hparams

# A prefix makes a card of its own in TensorBoard.
GROUPS = {"train_": "train/", "test_": "test/"}
# Beside the hyperparameters, the table shows the last value of these curves.
TABLE_METRICS = ("test/error_pct", "test/loss", "train/error_pct", "train/loss")


class TensorBoardLog:
    """Writes every number of a row as a scalar.

    Args:
        folder: Holds the event files.
        hyperparameters: A row of the HParams table; numbers, texts and truth values.
        pictures: Folder of PNG files called NAME-epoch<k>-....png, shown as they come.
    """

    def __init__(
        self, folder: pathlib.Path, hyperparameters: Mapping[str, float | str], pictures: pathlib.Path
    ) -> None:
        self._folder = folder
        self._hyperparameters = dict(hyperparameters)
        self._pictures = pictures
        self._shown: set[pathlib.Path] = set()
        self._writer: SummaryWriter | None = None

    def restart(self, rows: Sequence[dict[str, float]]) -> None:
        """Start a new event file with these rows; what older files say counts no more."""
        for old in self._folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(self._folder))
        # add_hparams() would open a run of its own in a folder below this one.
        for summary in hparams(self._hyperparameters, dict.fromkeys(TABLE_METRICS, 0.0)):
            _writer_of(self._writer).add_summary(summary)
        for row in rows:
            self.log(row)

    def log(self, row: dict[str, float]) -> None:
        """Write one row."""
        assert self._writer is not None, "restart() comes first"
        for key, value in row.items():
            if key not in ("epoch", "step"):
                prefix = next((prefix for prefix in GROUPS if key.startswith(prefix)), "")
                tag = GROUPS.get(prefix, "other/") + key.removeprefix(prefix)
                self._writer.add_scalar(tag, value, int(row["epoch"]))
        self._show_new_pictures()
        self._writer.flush()

    def advance(self, epoch: int, step: int) -> None:
        """Ignore single updates."""

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._show_new_pictures()
            self._writer.close()

    def _show_new_pictures(self) -> None:
        assert self._writer is not None
        for path in sorted(set(self._pictures.glob("*-epoch*.png")) - self._shown):
            with suppress(OSError):  # a picture that cannot be read is no reason to stop
                show_picture(self._writer, path)
            self._shown.add(path)


def append_picture(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Write a picture of a run that has ended into an event file of its own.

    Args:
        folder: Holds the event files.
        path: As for show_picture.
    """
    writer = SummaryWriter(str(folder), filename_suffix=".picture")
    show_picture(writer, path)
    writer.close()


def show_picture(writer: SummaryWriter, path: pathlib.Path) -> None:
    """Write a picture, as the file holds it.

    Args:
        writer: Of the event file.
        path: NAME-epoch<k>-....png; NAME makes the tag, k the step.
    """
    name, _, rest = path.stem.partition("-epoch")
    epoch, _, settings = rest.partition("-")
    with Image.open(path) as picture:
        width, height = picture.size
    image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=path.read_bytes())
    value = Summary.Value(tag=f"{name}/{settings}", image=image)
    _writer_of(writer).add_summary(Summary(value=[value]), int(epoch.partition("step")[0]))


def _writer_of(writer: SummaryWriter) -> FileWriter:
    assert writer.file_writer is not None, "it is there until the writer is closed"
    return writer.file_writer
