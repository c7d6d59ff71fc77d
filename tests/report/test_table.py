"""Tests of sam/report/table.py."""

from pathlib import Path
from typing import Any

import pytest

from sam.paper.cells import Match, read_cells
from sam.record.reader import find_runs
from sam.report.groups import group_runs
from sam.report.markdown import render_comparison
from sam.report.table import SettingTable, build_setting_tables
from sam.report.text_tables import setting_table, unpaired_seeds
from tests.record.run_directories import write_run

CELLS = Path(__file__).resolve().parents[2] / "results" / "paper" / "cells.csv"


def _blocks(root: Path) -> list[SettingTable]:
    return build_setting_tables(group_runs(find_runs([root])[0])[0], {})


def test_tables_put_sgd_and_sam_of_a_setting_together(tmp_path: Path) -> None:
    for epochs in (200, 400):
        write_run(tmp_path, epochs=epochs)
        write_run(tmp_path, epochs=epochs, optimizer__name="sam")
    blocks = _blocks(tmp_path)
    assert [block.title.split(", ")[3] for block in blocks] == ["epochs 200", "epochs 400"]
    for block in blocks:
        assert [row.group.label for row in block.rows] == ["SGD", "SAM rho=0.05"]


def test_blocks_give_the_paired_difference_to_sgd(tmp_path: Path) -> None:
    for seed, sgd, sam in ((0, 4.0, 3.0), (1, 6.0, 3.0)):
        write_run(tmp_path, {"test_error_pct": sgd}, seed=seed)
        write_run(tmp_path, {"test_error_pct": sam}, seed=seed, optimizer__name="sam")
    baseline, sam_row = _blocks(tmp_path)[0].rows
    assert baseline.difference is None
    assert sam_row.difference is not None and sam_row.difference.estimate is not None
    assert sam_row.difference.estimate.mean == -2.0
    assert sam_row.difference.estimate.half_width == pytest.approx(12.7062, abs=1e-4)


def test_blocks_give_no_difference_without_shared_seeds(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, seed=seed)
        write_run(tmp_path, seed=seed + 1, optimizer__name="sam")
    difference = _blocks(tmp_path)[0].rows[1].difference
    assert difference is not None and difference.estimate is None


@pytest.mark.parametrize(
    ("keys", "has_welch"),
    [({}, True), ({"dataset__label_noise": 0.4}, False), ({"dataset__subset_seed": "run"}, False)],
)
def test_blocks_give_welch_p_only_for_equal_data(
    tmp_path: Path, keys: dict[str, Any], has_welch: bool
) -> None:
    for seed, sgd, sam in ((0, 4.0, 3.0), (1, 6.0, 3.5), (2, 5.0, 3.5)):
        write_run(tmp_path, {"test_error_pct": sgd}, seed=seed, **keys)
        write_run(tmp_path, {"test_error_pct": sam}, seed=seed, optimizer__name="sam", **keys)
    (block,) = _blocks(tmp_path)
    difference = block.rows[1].difference
    assert difference is not None and difference.sign_flip_p == 0.25
    assert (difference.welch_p is not None) == has_welch
    header, cells = setting_table(block).header, setting_table(block).rows[1]
    assert ("p: t / sign-flip / Welch" in header) == has_welch
    assert cells[header.index("Top-5 error (%)") - 1].count(" / ") == 1 + has_welch


def test_blocks_name_the_seeds_without_a_partner(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path, seed=seed)
    for seed in (1, 2, *range(30, 42)):
        write_run(tmp_path, seed=seed, optimizer__name="sam")
    (block,) = _blocks(tmp_path)
    assert unpaired_seeds(block.rows) == [
        "without a partner: SAM rho=0.05, seeds 30, 31, 32, 33, 34, 35, 36, 37, 38, 39 and 2 more: "
        "no complete run of SGD",
        "without a partner: SGD, seed 0: no complete run of SAM rho=0.05",
    ]
    text = render_comparison([block])
    assert "no complete run of SGD" in text


def test_blocks_give_no_difference_to_an_ambiguous_baseline(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "a", {"identity": "aaaaaaaa"}, seed=seed)
        write_run(tmp_path / "b", {"identity": "bbbbbbbb"}, seed=seed)
        write_run(tmp_path, seed=seed, optimizer__name="sam")
    assert [row.difference for row in _blocks(tmp_path)[0].rows] == [None, None, None]


def test_blocks_put_the_closest_cell_in_its_row(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path, optimizer__name="sam")
    groups, _ = group_runs(find_runs([tmp_path])[0])
    first, second = (Match(cell, ()) for cell in read_cells(CELLS)[:2])
    rows = build_setting_tables(groups, {groups[1].key: [first, second], ("other", "SGD"): [second]})[0].rows
    assert [row.paper for row in rows] == [None, first]


def test_blocks_give_the_train_error_by_both_labels(tmp_path: Path) -> None:
    for seed in (0, 1):
        errors = {"train_error_pct": 40.0 + seed, "train_clean_error_pct": 3.0 + seed}
        write_run(tmp_path, errors, seed=seed, dataset__label_noise=0.4)
    (row,) = _blocks(tmp_path)[0].rows
    assert row.train_error_pct is not None
    assert row.train_clean_error_pct is not None
    assert (row.train_error_pct.mean, row.train_clean_error_pct.mean) == (40.5, 3.5)
