"""Tests of sam/logs/tensorboard.py, read back with TensorBoard's own reader."""

import threading
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from sam.logs.tensorboard import TensorBoardLog, append_picture


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) of each point of every curve."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def make_log(folder: Path) -> TensorBoardLog:
    hyperparameters = {"optimizer.name": "sam", "optimizer.rho": 0.05, "optimizer.nesterov": True}
    return TensorBoardLog(folder, hyperparameters, folder / "analysis")


def table_row(folder: Path) -> tuple[dict[str, object], set[str]]:
    """Return hyperparameters and names of metrics, as TensorBoard's HParams plugin reads them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    content = {
        tag: HParamsPluginData.FromString(content)
        for tag, content in events.PluginTagToContent("hparams").items()
    }
    start = content["_hparams_/session_start_info"].session_start_info.hparams
    experiment = content["_hparams_/experiment"].experiment
    assert {info.name for info in experiment.hparam_infos} == set(start)
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.items()}
    return values, {info.name.tag for info in experiment.metric_infos}


def test_tensorboard_log_gives_a_run_its_row_in_the_table_of_a_sweep(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.restart([])
    log.log({"epoch": 1, "test_error_pct": 3.0, "test_loss": 1.0, "train_error_pct": 2.0, "train_loss": 1.0})
    log.close()
    values, metrics = table_row(tmp_path)
    assert values == {"optimizer.name": "sam", "optimizer.rho": 0.05, "optimizer.nesterov": True}
    assert metrics == set(read(tmp_path))


def test_tensorboard_log_shows_pictures_at_their_epoch_as_they_come(tmp_path: Path) -> None:
    def pictures() -> dict[str, list[tuple[int, int, int]]]:
        events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
        events.Reload()
        tags = events.Tags()["images"]
        return {tag: [(e.step, e.width, e.height) for e in events.Images(tag)] for tag in tags}

    folder = tmp_path / "analysis"
    folder.mkdir()
    log = make_log(tmp_path)
    log.restart([])
    Image.new("RGBA", (30, 20)).save(folder / "hessian-epoch1-0123abcd.png")
    log.log({"epoch": 2, "test_loss": 2.0})
    assert pictures() == {"hessian/0123abcd": [(1, 30, 20)]}
    Image.new("RGBA", (31, 21)).save(folder / "hessian-epoch2-0123abcd.png")
    Image.new("RGBA", (32, 22)).save(folder / "sharpness-epoch2step7-89abcdef.png")
    log.close()
    expected = {
        "hessian/0123abcd": [(1, 30, 20), (2, 31, 21)],
        "sharpness/89abcdef": [(2, 32, 22)],
    }
    assert pictures() == expected

    again = make_log(tmp_path)
    again.restart([])
    again.close()
    assert pictures() == expected
    Image.new("RGBA", (33, 23)).save(folder / "landscape-epoch2-00000000.png")
    append_picture(tmp_path, folder / "landscape-epoch2-00000000.png")
    assert pictures() == {**expected, "landscape/00000000": [(2, 33, 23)]}


def test_tensorboard_log_groups_the_curves_and_counts_epochs(tmp_path: Path) -> None:
    log = make_log(tmp_path)
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
    log = make_log(tmp_path / "tensorboard")
    log.restart([])
    try:
        for epoch in (1, 2, 3):
            log.advance(epoch - 1, 1, 1.0)
            log.log({"epoch": epoch, "test_loss": 2.0})
            assert read(tmp_path / "tensorboard") == {"test/loss": [(n, 2.0) for n in range(1, epoch + 1)]}
    finally:
        log.close()


def test_tensorboard_log_restart_drops_rows_of_older_files(tmp_path: Path) -> None:
    rows = [{"epoch": epoch, "test_loss": float(epoch)} for epoch in (1, 2, 3)]
    first = make_log(tmp_path)
    first.restart([])
    for row in rows:
        first.log(row)
    first.close()
    (tmp_path / "notes.txt").write_text("mine")

    second = make_log(tmp_path)
    second.restart(rows[:1])
    second.log({"epoch": 2, "test_loss": 7.0})
    second.close()
    assert read(tmp_path) == {"test/loss": [(1, 1.0), (2, 7.0)]}
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_tensorboard_log_without_restart_is_refused(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    with pytest.raises(AssertionError, match=r"call restart\(\) first"):
        log.log({"epoch": 1, "test_loss": 2.0})
    log.close()


def test_tensorboard_log_on_a_full_disk_is_one_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = "sam.logs.tensorboard_adapter.open"
    monkeypatch.setattr(full, lambda path, mode: open("/dev/full", mode), raising=False)
    threads = threading.active_count()
    log = make_log(tmp_path)
    with pytest.raises(OSError, match=r"No space left on device: '.*events\.out\.tfevents\..*'$"):
        log.restart([{"epoch": 1, "test_loss": 2.0}])
    # A writer thread would print a traceback of its own.
    assert threading.active_count() == threads
    with pytest.raises(OSError, match="No space left on device"):
        log.close()
    monkeypatch.undo()
    log.restart([{"epoch": 1, "test_loss": 2.0}])
    log.close()
    assert read(tmp_path) == {"test/loss": [(1, 2.0)]}


def test_tensorboard_log_is_read_in_order_even_if_the_clock_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = make_log(tmp_path)
    log.restart([])
    for epoch, moment in enumerate((2e9, 1e9, 1.5e9), start=1):
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        log.log({"epoch": epoch, "test_loss": 2.0})
    log.close()
    assert read(tmp_path) == {"test/loss": [(1, 2.0), (2, 2.0), (3, 2.0)]}
