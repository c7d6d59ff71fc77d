import csv
import json

import pytest

from tests.test_train import metrics
from tests.tiny import TINY


def test_evaluate_gives_the_errors_of_the_last_epoch(command, tmp_path):
    command("train.py", *TINY, "dataset.label_noise=0.25", "epochs=2")
    (path,) = tmp_path.rglob("metrics.csv")
    with open(path, newline="") as file:
        last = list(csv.DictReader(file))[-1]
    code, out, _ = command("evaluate.py", f"run={path.parent}")
    assert code == 0
    record = json.loads((path.parent / "evaluation-test.json").read_text())
    assert record["error_pct"] == float(last["test_error_pct"])
    assert record["top5_error_pct"] == float(last["test_top5_error_pct"])
    assert record["loss"] == float(last["test_loss"])
    assert record["num_images"] == 16
    assert record["after"] == "2 epochs"
    assert len(record["class_error_pct"]) == len(record["class_names"]) == 4
    assert sum(record["class_error_pct"]) / 4 == pytest.approx(record["error_pct"])
    for line in ("top-1 error", "top-5 error", "calibration error", "loss", "evaluation-test.json"):
        assert line in out


def test_run_that_averages_its_weights_is_evaluated_at_the_averaged_weights(command, tmp_path):
    # Averages are not yet those of a network that has learned: its errors differ.
    rows = {}
    for name, more in {"plain": [], "averaged": ["ema_decay=0.99"]}.items():
        code, out, _ = command("train.py", *TINY, "epochs=3", f"outputs={name}", *more)
        assert code == 0
        assert ("test (EMA)" in out) == (name == "averaged")
        (path,) = (tmp_path / name).rglob("metrics.csv")
        rows[name] = metrics(path.parent)
    for row, other in zip(*rows.values(), strict=True):
        assert row["train_loss"] == other["train_loss"], "the average changes no update"
        assert row["test_loss"] != other["test_loss"]
    code, out, _ = command("evaluate.py", f"run={path.parent}")
    assert code == 0
    assert "test split, 16 images, after 3 epochs, averaged weights (ema_decay=0.99)" in out
    record = json.loads((path.parent / "evaluation-test.json").read_text())
    assert (record["loss"], record["ema_decay"]) == (float(rows["averaged"][-1]["test_loss"]), 0.99)


def test_evaluate_on_the_training_split(command, tmp_path):
    command("train.py", *TINY)
    (path,) = tmp_path.rglob("metrics.csv")
    code, out, _ = command("evaluate.py", f"run={path.parent}", "split=train")
    assert code == 0
    assert "train split, 32 images, after 1 epochs" in out
    assert json.loads((path.parent / "evaluation-train.json").read_text())["num_images"] == 32


def test_evaluate_of_an_interrupted_run_says_after_how_many_epochs(command, tmp_path):
    command("train.py", *TINY)
    (result,) = tmp_path.rglob("result.json")
    result.unlink()
    code, out, _ = command("evaluate.py", f"run={result.parent}")
    assert (code, "after 1 epochs" in out) == (0, True)


@pytest.mark.parametrize("how", ["random", "last"])
def test_evaluate_of_a_run_that_holds_images_out_says_validation(command, tmp_path, how):
    command("train.py", *TINY, "dataset.num_train=160", f"dataset.validation={how}", "epochs=2")
    (path,) = tmp_path.rglob("metrics.csv")
    code, out, _ = command("evaluate.py", f"run={path.parent}")
    assert code == 0
    assert "validation split, 16 images, after 2 epochs" in out
    assert "evaluation-validation.json" in out
    assert not (path.parent / "evaluation-test.json").exists()
    record = json.loads((path.parent / "evaluation-validation.json").read_text())
    last = metrics(path.parent)[-1]
    assert (record["split"], record["num_images"]) == ("validation", 16)
    assert record["error_pct"] == float(last["test_error_pct"])
    assert record["loss"] == float(last["test_loss"])
    _, out, _ = command("evaluate.py", f"run={path.parent}", "split=train")
    assert "train split, 144 images" in out
    assert json.loads((path.parent / "evaluation-train.json").read_text())["split"] == "train"
