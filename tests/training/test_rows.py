"""Rows keep every number to the bit, on the way through a checkpoint, too."""

import dataclasses
import math

import pytest
import torch

from sam.training.rows import Rows

WRITTEN = [
    {"epoch": 1, "step": 3, "train_loss": 0.1 + 0.2, "test_loss": 5e-324},
    {"epoch": 2, "step": 2**53 - 1, "train_loss": -0.0, "perturbed_loss": 1.7976931348623157e308},
    {"epoch": 3, "step": 9, "train_loss": math.inf, "test_loss": 1 / 3},
]


def rows_of(written):
    rows = Rows()
    for row in written:
        rows.append(row)
    return rows


def test_rows_come_back_as_they_were_written(tmp_path):
    torch.save(dataclasses.asdict(rows_of(WRITTEN)), tmp_path / "rows")
    read = Rows(**torch.load(tmp_path / "rows", weights_only=True))
    assert len(read) == 3
    assert [repr(sorted(row.items())) for row in read] == [repr(sorted(row.items())) for row in WRITTEN]
    assert read[-1] == WRITTEN[-1]


def test_a_number_that_is_none_is_not_one_that_is_missing():
    (first, second) = rows_of([{"epoch": 1, "test_loss": math.nan}, {"epoch": 2}])
    assert math.isnan(first["test_loss"])
    assert second == {"epoch": 2}


def test_no_rows_are_false_and_end():
    assert not Rows()
    assert list(Rows()) == []
    with pytest.raises(IndexError):
        Rows()[-1]


def test_rows_take_nine_bytes_a_number(tmp_path):
    row = {f"name{number}": 1 / 3 for number in range(18)}
    torch.save(dataclasses.asdict(rows_of([row] * 500)), tmp_path / "rows")
    assert (tmp_path / "rows").stat().st_size < 500 * 18 * 9 + 4000
