"""Tests of sam/logs/tensorboard.py, read back with TensorBoard's own reader."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sam.logs.tensorboard import TensorBoardLog


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) of every curve."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_tensorboard_log_groups_the_curves_and_counts_epochs(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    log.restart([])
    for epoch in (1, 2):
        log.log(
            {
                "epoch": epoch,
                "step": 39 * epoch,
                "lr": 0.5 / epoch,
                "train_error_pct": 8.0 / epoch,
                "train_top5_error_pct": 1.0,
                "test_loss": 0.25,
                "cosine": -0.5,
            }
        )
    log.close()
    assert read(tmp_path) == {
        "other/lr": [(1, 0.5), (2, 0.25)],
        "train/error_pct": [(1, 8.0), (2, 4.0)],
        "train/top5_error_pct": [(1, 1.0), (2, 1.0)],
        "test/loss": [(1, 0.25), (2, 0.25)],
        "other/cosine": [(1, -0.5), (2, -0.5)],
    }


def test_tensorboard_log_every_row_is_on_disk_at_once(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path / "tensorboard")
    log.restart([])
    try:
        for epoch in (1, 2, 3):
            log.advance(epoch - 1, 1)
            log.log({"epoch": epoch, "test_loss": 2.0})
            assert read(tmp_path / "tensorboard") == {"test/loss": [(n, 2.0) for n in range(1, epoch + 1)]}
    finally:
        log.close()


def test_tensorboard_log_restart_drops_rows_that_are_no_part_of_the_run(tmp_path: Path) -> None:
    rows = [{"epoch": epoch, "test_loss": float(epoch)} for epoch in (1, 2, 3)]
    first = TensorBoardLog(tmp_path)
    first.restart([])
    for row in rows:
        first.log(row)
    first.close()
    (tmp_path / "notes.txt").write_text("mine")

    second = TensorBoardLog(tmp_path)
    second.restart(rows[:1])
    second.log({"epoch": 2, "test_loss": 7.0})
    second.close()
    assert read(tmp_path) == {"test/loss": [(1, 1.0), (2, 7.0)]}
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_tensorboard_log_without_restart_is_refused(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    with pytest.raises(AssertionError, match=r"restart\(\) comes first"):
        log.log({"epoch": 1, "test_loss": 2.0})
    log.close()
