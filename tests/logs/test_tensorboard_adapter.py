"""The internals of TensorBoard and torch that sam/logs/tensorboard_adapter.py uses have not changed."""

from importlib.metadata import version
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from sam.logs.tensorboard_adapter import EventFile

CHANGED = (
    f"tensorboard {version('tensorboard')} differs from 2.21.0, or torch {version('torch')} from 2.14.1; "
    "repair sam/logs/tensorboard_adapter.py: "
)


def test_event_file_can_be_read_by_tensorboard(tmp_path: Path) -> None:
    try:
        events = EventFile(tmp_path, ".end")
        events.add_hyperparameters({"rho": 0.05}, ["test/loss"])
        events.add_scalar("test/loss", 3, 0.25)
        events.add_png("surface", 4, b"png", (30, 20))
        events.close()
    except (AttributeError, TypeError, ValueError) as error:
        pytest.fail(f"{CHANGED}{error}")
    [path] = tmp_path.glob("events.out.tfevents.*.end")
    first, *others = [Event.FromString(record) for record in RawEventFileLoader(str(path)).Load()]
    assert first.file_version == "brain.Event:2"
    tags = [value.tag for event in others for value in event.summary.value]
    assert tags[-2:] == ["test/loss", "surface"], CHANGED + "scalar or Summary"
    assert tags[:-2] == [
        "_hparams_/experiment",
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    ], CHANGED + "hparams"
    curve, picture = (event.summary.value[0] for event in others[-2:])
    assert (others[-2].step, curve.simple_value) == (3, 0.25), CHANGED + "scalar"
    assert (others[-1].step, picture.image.width, picture.image.height) == (4, 30, 20), (
        CHANGED + "Summary.Image"
    )


def test_event_file_is_written_at_once_when_told(tmp_path: Path) -> None:
    events = EventFile(tmp_path)
    events.flush()
    [path] = tmp_path.iterdir()
    assert path.stat().st_size > 0, CHANGED + "RecordWriter.flush"
    events.close()
