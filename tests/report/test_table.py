"""Tests of sam/report/table.py."""

from pathlib import Path

import pytest

from sam.report.groups import group_runs
from sam.report.paper import PrintedCell
from sam.report.runs import find_runs
from sam.report.table import Block, build_blocks
from tests.report.run_directories import write_run

CELL = PrintedCell(("cifar10", "wrn_28_10", "basic", "sam"), "1", 200, 2.7, 0.1, False, "2.7 ± 0.1")


def _blocks(root: Path) -> list[Block]:
    return build_blocks(group_runs(find_runs([root])[0])[0], [CELL])


def test_blocks_put_sgd_beside_sam_of_the_same_setting(tmp_path: Path) -> None:
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
    assert baseline.difference_points is None
    assert sam_row.difference_points is not None
    assert sam_row.difference_points.mean == -2.0
    assert sam_row.difference_points.half_width == pytest.approx(12.7062, abs=1e-4)


def test_blocks_give_no_difference_without_shared_seeds(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, seed=seed)
        write_run(tmp_path, seed=seed + 1, optimizer__name="sam")
    assert _blocks(tmp_path)[0].rows[1].difference_points is None


def test_blocks_give_no_difference_to_an_ambiguous_baseline(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "a", {"identity": "aaaaaaaa"}, seed=seed)
        write_run(tmp_path / "b", {"identity": "bbbbbbbb"}, seed=seed)
        write_run(tmp_path, seed=seed, optimizer__name="sam")
    assert [row.difference_points for row in _blocks(tmp_path)[0].rows] == [None, None, None]


def test_blocks_mark_the_lowest_mean_of_a_sweep(tmp_path: Path) -> None:
    write_run(tmp_path, {"test_error_pct": 1.0})
    for rho, error in ((0.05, 3.0), (0.1, 2.5), (0.2, 2.8)):
        write_run(tmp_path, {"test_error_pct": error}, optimizer__name="sam", optimizer__rho=rho)
    best = [row.group.label for row in _blocks(tmp_path)[0].rows if row.is_best]
    assert best == ["SAM rho=0.1"]


def test_blocks_mark_the_best_of_each_variant(tmp_path: Path) -> None:
    for steps, offset in ((1, 0.0), (3, 1.0)):
        for rho, error in ((0.05, 3.0), (0.1, 2.5)):
            write_run(
                tmp_path,
                {"test_error_pct": error + offset},
                optimizer__name="sam",
                optimizer__rho=rho,
                optimizer__ascent_steps=steps,
            )
    best = [row.group.label for row in _blocks(tmp_path)[0].rows if row.is_best]
    assert best == ["SAM rho=0.1", "SAM rho=0.1 3 ascent steps"]


def test_blocks_mark_no_best_of_a_single_rho(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path, optimizer__name="sam")
    write_run(tmp_path, optimizer__name="sam", optimizer__adaptive=True, optimizer__rho=1.0)
    assert not any(row.is_best for row in _blocks(tmp_path)[0].rows)


def test_blocks_mark_no_diverged_rho(tmp_path: Path) -> None:
    for rho in (0.05, 0.1):
        write_run(tmp_path, optimizer__name="sam", optimizer__rho=rho)
    diverged = {"status": "diverged", "test_error_pct": 0.0}
    write_run(tmp_path, diverged, optimizer__name="sam", optimizer__rho=0.5)
    rows = _blocks(tmp_path)[0].rows
    assert [row.is_best for row in rows] == [True, False, False]
    assert rows[2].test_error_pct is None


def test_blocks_put_the_printed_number_in_its_row(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path, optimizer__name="sam")
    assert [row.printed for row in _blocks(tmp_path)[0].rows] == [None, CELL]


def test_blocks_put_no_printed_number_beside_a_validation_error(tmp_path: Path) -> None:
    write_run(tmp_path, optimizer__name="sam", dataset__validation="last")
    (block,) = _blocks(tmp_path)
    assert block.setting.split == "validation"
    assert [row.printed for row in block.rows] == [None]


def test_blocks_give_the_train_error_by_both_labels(tmp_path: Path) -> None:
    for seed in (0, 1):
        errors = {"train_error_pct": 40.0 + seed, "train_clean_error_pct": 3.0 + seed}
        write_run(tmp_path, errors, seed=seed, dataset__label_noise=0.4)
    (row,) = _blocks(tmp_path)[0].rows
    assert row.train_error_pct is not None
    assert row.train_clean_error_pct is not None
    assert (row.train_error_pct.mean, row.train_clean_error_pct.mean) == (40.5, 3.5)
