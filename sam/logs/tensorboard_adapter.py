"""The event file of TensorBoard. What is taken from inside TensorBoard and torch stands here.

The writers of torch and of TensorBoard leave the writing to a thread, which ends with a traceback of its own
if a disk is full. This one writes in place. Tried with tensorboard 2.21.0 and torch 2.14.1;
tests/logs/test_tensorboard_adapter.py says so when a new version changes any of it.
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
    """An event file of TensorBoard.

    Args:
        folder: Where it is made.
        ending: End of its name.

    Raises:
        OSError: If it cannot be made; as every method, if it cannot be written.
    """

    def __init__(self, folder: pathlib.Path, ending: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}{ending}"
        self._path = folder / name
        self._records = RecordWriter(open(self._path, "wb"))  # noqa: SIM115  (until close)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add_hyperparameters(self, values: Mapping[str, float | str], metrics: Iterable[str]) -> None:
        """Write a row of the HParams table, which shows the last value of some curves."""
        for summary in hparams(dict(values), dict.fromkeys(metrics, 0.0)):
            self._write(Event(wall_time=time.time(), summary=summary))

    def add_scalar(self, tag: str, step: int, value: float) -> None:
        """Write the next point of a curve."""
        self._write(Event(wall_time=time.time(), step=step, summary=scalar(tag, value)))

    def add_png(self, tag: str, step: int, png: bytes, size: tuple[int, int]) -> None:
        """Write a picture of a width and a height in pixels."""
        width, height = size
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
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
