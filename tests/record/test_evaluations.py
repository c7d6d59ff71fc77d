"""Tests of sam/record/evaluations.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from sam.record.evaluations import Bin, Calibration, read_calibration

FINAL = {"after": "20 epochs"}
BIN = {"num_images": 3, "confidence_pct": 90.0, "accuracy_pct": 66.7}


def test_read_calibration_returns_bins_by_confidence(tmp_path: Path) -> None:
    other = {"num_images": 1, "confidence_pct": 20.0, "accuracy_pct": 0.0}
    record = {**FINAL, "calibration_error_pct": 22.5, "calibration_bins": [BIN, other]}
    (tmp_path / "evaluation-train.json").write_text(json.dumps(record))
    found = read_calibration(tmp_path, "train", 20)
    assert found == Calibration(22.5, (Bin(1, 20.0, 0.0), Bin(3, 90.0, 66.7)))
    assert read_calibration(tmp_path, "test", 20) is None


@pytest.mark.parametrize("after", ["10 epochs", "20 epochs and 3 steps", "19 epochs and 3 steps"])
def test_read_calibration_from_before_the_last_epoch_is_none(tmp_path: Path, after: str) -> None:
    record = {"after": after, "calibration_error_pct": 22.5, "calibration_bins": [BIN]}
    (tmp_path / "evaluation-test.json").write_text(json.dumps(record))
    assert read_calibration(tmp_path, "test", 20) is None


@pytest.mark.parametrize(
    "record",
    [
        [],
        {**FINAL, "calibration_error_pct": 1.0},
        {**FINAL, "calibration_error_pct": 1.0, "calibration_bins": []},
        {**FINAL, "calibration_error_pct": None, "calibration_bins": [BIN]},
        {**FINAL, "calibration_error_pct": 1.0, "calibration_bins": [BIN, {"num_images": 1}]},
        {**FINAL, "calibration_error_pct": 1.0, "calibration_bins": [{**BIN, "accuracy_pct": None}]},
        {**FINAL, "calibration_error_pct": 1.0, "calibration_bins": 3},
        {"calibration_error_pct": 1.0, "calibration_bins": [BIN]},
    ],
)
def test_read_calibration_of_a_file_without_it_is_none(tmp_path: Path, record: Any) -> None:
    (tmp_path / "evaluation-test.json").write_text(json.dumps(record))
    assert read_calibration(tmp_path, "test", 20) is None


def test_read_calibration_of_half_a_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "evaluation-test.json").write_text('{"calibration_error_pct": 1')
    assert read_calibration(tmp_path, "test", 20) is None
