"""Tests of sam/report/evaluations.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from sam.report.evaluations import Bin, Calibration, read_calibration

BIN = {"num_images": 3, "confidence_pct": 90.0, "accuracy_pct": 66.7}


def test_read_calibration_returns_bins_by_confidence(tmp_path: Path) -> None:
    other = {"num_images": 1, "confidence_pct": 20.0, "accuracy_pct": 0.0}
    record = {"calibration_error_pct": 22.5, "calibration_bins": [BIN, other]}
    (tmp_path / "evaluation-train.json").write_text(json.dumps(record))
    found = read_calibration(tmp_path, "train")
    assert found == Calibration(22.5, (Bin(1, 20.0, 0.0), Bin(3, 90.0, 66.7)))
    assert read_calibration(tmp_path, "test") is None


@pytest.mark.parametrize(
    "record",
    [
        [],
        {"calibration_error_pct": 1.0},
        {"calibration_error_pct": 1.0, "calibration_bins": []},
        {"calibration_error_pct": None, "calibration_bins": [BIN]},
        {"calibration_error_pct": 1.0, "calibration_bins": [BIN, {"num_images": 1}]},
        {"calibration_error_pct": 1.0, "calibration_bins": [{**BIN, "accuracy_pct": None}]},
        {"calibration_error_pct": 1.0, "calibration_bins": 3},
    ],
)
def test_read_calibration_of_a_file_without_it_is_none(tmp_path: Path, record: Any) -> None:
    (tmp_path / "evaluation-test.json").write_text(json.dumps(record))
    assert read_calibration(tmp_path, "test") is None


def test_read_calibration_of_half_a_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "evaluation-test.json").write_text('{"calibration_error_pct": 1')
    assert read_calibration(tmp_path, "test") is None
