"""The event file of TensorBoard. Only this file uses internals of TensorBoard and torch's writer.

The writers of torch and TensorBoard use a thread, which prints a traceback of its own if the disk is full.
This one writes in the calling thread. Tested with tensorboard 2.21.0 and torch 2.14.1;
tests/logs/test_tensorboard_adapter.py fails if a new version changes these internals.
"""

import os
import pathlib
import socket
import time
from collections.abc import Iterable, Mapping

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams, scalar

from sam.system.files import naming


class EventFile:
    """An event file of TensorBoard. Every method raises OSError if the file cannot be written.

    Args:
        folder: Folder of the file; created if it is missing.
        ending: End of the file's name.

    Raises:
        OSError: If the file cannot be created.
    """

    def __init__(self, folder: pathlib.Path, ending: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}{ending}"
        self._path = folder / name
        self._records = RecordWriter(open(self._path, "wb"))  # noqa: SIM115  (until close)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add_hyperparameters(self, values: Mapping[str, float | str], metrics: Iterable[str]) -> None:
        """Write a row of the HParams table, which also shows the last value of these curves."""
        for summary in hparams(dict(values), dict.fromkeys(metrics, 0.0)):
            self._write(Event(wall_time=time.time(), summary=summary))

    def add_scalar(self, tag: str, step: int, value: float) -> None:
        """Write the next point of a curve."""
        self._write(Event(wall_time=time.time(), step=step, summary=scalar(tag, value)))

    def add_png(self, tag: str, step: int, png: bytes, size: tuple[int, int]) -> None:
        """Write a PNG picture; size is its width and height in pixels."""
        width, height = size
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Pass all data to the operating system."""
        with naming(self._path):
            self._records.flush()

    def close(self) -> None:
        """Write the remaining data and close the file."""
        with naming(self._path):
            self._records.close()

    def _write(self, event: Event) -> None:
        with naming(self._path):
            self._records.write(event.SerializeToString())
