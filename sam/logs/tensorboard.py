"""TensorBoard: the curves of metrics.csv against the epoch, a row of the HParams table, and pictures."""

import os
import pathlib
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import closing

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams, scalar

from sam.system.files import naming

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
        self._events: EventFile | None = None

    def restart(self, rows: Sequence[dict[str, float]]) -> None:
        """Start a new event file with these rows; what older files say counts no more."""
        for old in self._folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._events = EventFile(self._folder)
        for summary in hparams(self._hyperparameters, dict.fromkeys(TABLE_METRICS, 0.0)):
            self._events.add(summary)
        for row in rows:
            self._add(row)
        self._events.flush()

    def log(self, row: dict[str, float]) -> None:
        """Write one row."""
        self._add(row)
        self._show_new_pictures()
        self._opened.flush()

    def advance(self, epoch: int, step: int) -> None:
        """Ignore single updates."""

    def close(self) -> None:
        """Close the event file."""
        if self._events is not None:
            with closing(self._events):
                self._show_new_pictures()

    @property
    def _opened(self) -> "EventFile":
        assert self._events is not None, "restart() comes first"
        return self._events

    def _add(self, row: dict[str, float]) -> None:
        for key, value in row.items():
            if key not in ("epoch", "step"):
                prefix = next((prefix for prefix in GROUPS if key.startswith(prefix)), "")
                tag = GROUPS.get(prefix, "other/") + key.removeprefix(prefix)
                self._opened.add(scalar(tag, value), int(row["epoch"]))

    def _show_new_pictures(self) -> None:
        for path in sorted(set(self._pictures.glob("*-epoch*.png")) - self._shown):
            self._shown.add(path)
            try:
                picture = _picture(path)
            except OSError:  # one that cannot be read is no reason to stop
                continue
            self._opened.add(*picture)


class EventFile:
    """An event file of TensorBoard.

    The writers of torch and of TensorBoard leave the writing to a thread, which ends with a traceback of its
    own where a disk is full; this one writes in place.

    Args:
        folder: Where it is made.
        ending: Of its name.

    Raises:
        OSError: If it cannot be made; as every method, if it cannot be written.
    """

    def __init__(self, folder: pathlib.Path, ending: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}{ending}"
        self._path = folder / name
        self._records = RecordWriter(open(self._path, "wb"))  # noqa: SIM115  (until close)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, summary: Summary, step: int = 0) -> None:
        """Write a curve's next point or a picture."""
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Hand everything to the operating system."""
        with naming(self._path):
            self._records.flush()

    def close(self) -> None:
        """Write what is left; nothing follows."""
        with naming(self._path):
            self._records.close()

    def _write(self, event: Event) -> None:
        with naming(self._path):
            self._records.write(event.SerializeToString())


def append_picture(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Write a picture of a run that has ended into an event file of its own.

    Args:
        folder: Holds the event files.
        path: NAME-epoch<k>-....png; NAME makes the tag, k the step.
    """
    with closing(EventFile(folder, f".{path.stem}")) as events:
        events.add(*_picture(path))


def _picture(path: pathlib.Path) -> tuple[Summary, int]:
    """Return a picture as the file holds it, and its step."""
    name, _, rest = path.stem.partition("-epoch")
    epoch, _, settings = rest.partition("-")
    with Image.open(path) as picture:
        width, height = picture.size
    image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=path.read_bytes())
    value = Summary.Value(tag=f"{name}/{settings}", image=image)
    return Summary(value=[value]), int(epoch.partition("step")[0])
