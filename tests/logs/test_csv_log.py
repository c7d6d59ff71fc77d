"""Tests of sam/logs/csv_log.py."""

import csv
import math
import os
from pathlib import Path

import pytest

from sam.logs.csv_log import COLUMNS, CsvLog

HEADER = (
    "epoch,step,lr,train_loss,train_error_pct,train_top5_error_pct,train_clean_error_pct,test_loss,"
    "test_error_pct,test_top5_error_pct,perturbed_loss,perturbed_error_pct,loss_rise,grad_norm,cosine,"
    "unperturbed,passes,seconds,images_per_second\n"
)


def full_row(epoch: int) -> dict[str, float]:
    return {name: epoch + number / 7 for number, name in enumerate(COLUMNS)}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_log_restart_without_rows_writes_the_header(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "metrics.csv")
    log.restart([])
    assert (tmp_path / "metrics.csv").read_text() == HEADER


def test_csv_log_numbers_can_be_read_back_exactly(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "metrics.csv")
    log.restart([full_row(1)])
    log.log(full_row(2))
    log.close()
    rows = [{name: float(text) for name, text in row.items()} for row in read(tmp_path / "metrics.csv")]
    assert rows == [full_row(1), full_row(2)]


def test_csv_log_every_row_is_on_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = CsvLog(path)
    log.restart([])
    for epoch in (1, 2, 3):
        log.advance(epoch - 1, 1, 1.0)
        log.log({"epoch": epoch})
        assert path.read_text() == HEADER + "".join(f"{n}{',' * 18}\n" for n in range(1, epoch + 1))


def test_csv_log_leaves_missing_numbers_empty_and_keeps_non_finite_ones(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "metrics.csv")
    log.restart([])
    log.log({"test_loss": math.nan, "epoch": 1, "train_loss": math.inf})
    (row,) = read(tmp_path / "metrics.csv")
    assert row["epoch"] == "1"
    assert row["cosine"] == row["lr"] == ""
    assert math.isnan(float(row["test_loss"]))
    assert math.isinf(float(row["train_loss"]))


def test_csv_log_restart_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step\n1,2\n3,")
    CsvLog(path).restart([{"epoch": 1}])
    assert path.read_text() == HEADER + "1" + "," * 18 + "\n"
    assert os.listdir(tmp_path) == ["metrics.csv"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_csv_log_restart_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "metrics.csv"
    log = CsvLog(path)
    log.restart([{"epoch": 1}])
    before = path.read_text()

    def refuse(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="no space left on device"):
        log.restart([{"epoch": 1}, {"epoch": 2}])
    assert path.read_text() == before


def test_csv_log_refuses_a_number_without_a_column(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "metrics.csv")
    log.restart([])
    with pytest.raises(ValueError, match="dict contains fields not in fieldnames: 'sharpness'"):
        log.log({"epoch": 1, "sharpness": 2.0})
    assert (tmp_path / "metrics.csv").read_text() == HEADER


def test_csv_log_on_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.csv'$"):
        CsvLog(path).log(full_row(1))
