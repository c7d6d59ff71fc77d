"""Tests of sam/report/paper_rows.py, on the repository's own cells."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from sam.paper.cells import Cell, read_cells
from sam.record.identity import path_of
from sam.record.reader import Run, find_runs
from sam.record.run_files import resolved
from sam.report.groups import group_runs
from sam.report.interval import Estimate
from sam.report.paper_rows import PaperRow, compare_with_paper, match_paper, verdict
from tests.record.run_directories import make_result, typed_config, write_run

CELLS = Path(__file__).resolve().parents[2] / "results" / "paper" / "cells.csv"
EXACT = {"optimizer__weight_decay_in": "loss", "model__init_seed": 0}
BOOTSTRAPPED = {**EXACT, "model__name": "resnet32_wide", "optimizer__name": "sam", "optimizer__rho": 0.1}
SGD, SAM = "table1/cifar10/wrn_28_10_200/basic/sgd", "table1/cifar10/wrn_28_10_200/basic/sam"


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return read_cells(CELLS)


def _rows(root: Path, cells: list[Cell]) -> list[PaperRow]:
    runs, _ = find_runs([root])
    groups, _ = group_runs(runs)
    return compare_with_paper(groups, match_paper(groups, runs, cells), cells)


def _write(root: Path, errors: list[float], **changes: Any) -> None:
    for seed, error in enumerate(errors):
        write_run(root, {"test_error_pct": error}, seed=seed, **{**EXACT, **changes})


@pytest.mark.parametrize(
    ("difference", "printed", "half_width", "words"),
    [
        (0.1, 0.1, 0.1, "inside both"),
        (-0.1, 0.1, 0.1, "inside both"),
        (2.6 - 2.7, 0.1, 0.1, "inside both"),
        (0.11, 0.11, 0.1, "inside the paper's only"),
        (-0.11, 0.1, 0.11, "inside ours only"),
        (0.11, 0.1, 0.1, "outside both"),
        (0.1, None, 0.1, "inside ours"),
        (0.11, None, 0.1, "outside ours"),
        (0.0, 0.0, 0.0, "inside both"),
    ],
)
def test_verdict_at_its_borders(
    difference: float, printed: float | None, half_width: float, words: str
) -> None:
    assert verdict(difference, printed, Estimate(0.0, half_width, 3)) == words


@pytest.mark.parametrize("ours", [Estimate(0.0, None, 1), Estimate(0.0, 5.0, 2)])
@pytest.mark.parametrize("printed", [None, 0.1])
def test_verdict_on_too_few_seeds_says_so(ours: Estimate, printed: float | None) -> None:
    assert verdict(0.0, printed, ours) == "too few seeds"


def test_rows_put_ours_next_to_every_cell_that_is_repeated(tmp_path: Path, cells: list[Cell]) -> None:
    _write(tmp_path, [2.53, 2.73, 2.93], optimizer__name="sam")
    rows = _rows(tmp_path, cells)
    assert [(row.cell.table, row.verdict) for row in rows] == [
        ("1", "inside both"),
        ("9", "inside ours"),
        ("11", "inside ours"),
    ]
    assert rows[0].cell.name == SAM
    assert rows[0].top1.mean == pytest.approx(2.73)
    assert rows[0].difference_points == pytest.approx(0.03)
    assert (rows[0].departures, rows[0].alternative, rows[0].not_run) == ((), "", ())


def test_rows_keep_departures_apart(tmp_path: Path, cells: list[Cell]) -> None:
    _write(tmp_path, [3.0], optimizer__name="sam", optimizer__rho=0.1)
    _write(tmp_path, [4.0], optimizer__name="sam", optimizer__rho=0.2)
    _write(tmp_path, [2.0], optimizer__name="sam", optimizer__rho=0.2, epochs=30)
    rows = _rows(tmp_path, cells)
    assert {row.cell.name for row in rows} == {SAM}
    assert [([str(departure) for departure in row.departures], row.top1.mean) for row in rows] == [
        (["optimizer.rho=0.1 (0.05)"], 3.0),
        (["optimizer.rho=0.2 (0.05)"], 4.0),
        (["optimizer.rho=0.2 (0.05)", "epochs=30 (200)"], 2.0),
    ]


def test_rows_take_the_alternative_of_the_lowest_mean(tmp_path: Path, cells: list[Cell]) -> None:
    _write(tmp_path, [3.6, 3.6, 3.6])
    (row, _) = _rows(tmp_path, cells)
    assert (row.cell.name, row.alternative, row.not_run) == (SGD, "epochs=200", ("epochs=400",))
    _write(tmp_path, [3.4, 3.4, 3.4], epochs=400)
    (row, _) = _rows(tmp_path, cells)
    assert (row.alternative, row.not_run, row.top1.mean) == ("epochs=400", (), 3.4)


def test_rows_count_alternatives_of_equal_departures_only(tmp_path: Path, cells: list[Cell]) -> None:
    _write(tmp_path, [3.6], runtime__precision="bf16")
    _write(tmp_path, [3.0], epochs=400)
    departed = [row for row in _rows(tmp_path, cells) if row.departures]
    assert [(row.alternative, row.not_run, row.top1.mean) for row in departed] == [
        ("epochs=200", ("epochs=400",), 3.6)
    ]


def test_rows_of_runs_that_are_no_alternative_name_none(tmp_path: Path, cells: list[Cell]) -> None:
    _write(tmp_path, [9.0], epochs=30)
    _write(tmp_path, [3.5], epochs=200)
    exact, row = [row for row in _rows(tmp_path, cells) if row.cell.name == SGD]
    assert (exact.alternative, exact.top1.mean) == ("epochs=200", 3.5)
    assert (row.alternative, row.not_run, row.top1.mean) == ("", (), 9.0)
    assert list(map(str, row.departures)) == ["epochs=30 (200 or 400)"]


def test_rows_do_not_mix_conditions_that_no_cell_tells_apart(tmp_path: Path, cells: list[Cell]) -> None:
    _write(tmp_path, [3.5])
    _write(tmp_path, [1.0], augmentation__crop_padding=2)
    assert sorted(row.top1.mean for row in _rows(tmp_path, cells) if row.cell.name == SGD) == [1.0, 3.5]


def test_rows_leave_out_conditions_without_a_complete_run(tmp_path: Path, cells: list[Cell]) -> None:
    write_run(tmp_path, {"status": "diverged", "test_error_pct": None}, **EXACT)
    assert _rows(tmp_path, cells) == []


def test_rows_of_imagenet_have_both_errors(tmp_path: Path, cells: list[Cell]) -> None:
    names = {"dataset__name": "imagenet", "model__name": "resnet50", "augmentation__name": "inception"}
    write_run(tmp_path, {"test_error_pct": 23.0, "test_top5_error_pct": 6.5}, **names, epochs=100)
    (row,) = _rows(tmp_path, cells)
    assert row.cell.top5 is not None and row.top5 is not None
    assert (row.top1.mean, row.cell.top1.error_pct) == (23.0, 22.9)
    assert (row.top5.mean, row.cell.top5.text) == (6.5, "6.62 ± 0.11")


def test_matching_of_many_conditions_takes_no_time(cells: list[Cell]) -> None:
    configs = [typed_config(optimizer__name="sam", optimizer__rho=0.001 * (step + 1)) for step in range(150)]
    # These runs are not on disk, since writing them would take most of the time.
    runs = [Run(path_of(config), resolved(config), {}, 0, make_result(config)) for config in configs]
    groups, _ = group_runs(runs)
    begin = time.process_time()
    assert len(match_paper(groups, runs, cells)) == 150
    # It takes about 0.2 s; comparing the runs of a whole reproduction must be fast.
    assert time.process_time() - begin < 3


def test_bootstrapped_rows_find_the_run_of_their_labels_after_a_move(
    tmp_path: Path, cells: list[Cell]
) -> None:
    source = write_run(tmp_path / "a/b/outputs/x/y", **BOOTSTRAPPED, dataset__label_noise=0.4)
    write_run(tmp_path / "c", **BOOTSTRAPPED, dataset__relabel_from=str(source))
    shutil.copytree(tmp_path / "a", tmp_path / "moved/to/a")
    shutil.rmtree(tmp_path / "a")
    names = [row.cell.name for row in _rows(tmp_path, cells)]
    assert "table4/noise40/resnet32_wide/basic/bootstrap_sam" in names
    assert len(names) == 2


def test_bootstrapped_rows_read_the_run_of_their_labels_from_elsewhere(
    tmp_path: Path, cells: list[Cell]
) -> None:
    source = write_run(tmp_path / "elsewhere", **BOOTSTRAPPED, dataset__label_noise=0.8)
    write_run(tmp_path / "c", **BOOTSTRAPPED, dataset__relabel_from=str(source))
    (row,) = _rows(tmp_path / "c", cells)
    assert row.cell.name == "table4/noise80/resnet32_wide/basic/bootstrap_sam"


def test_bootstrapped_rows_without_the_run_of_their_labels_are_none(
    tmp_path: Path, cells: list[Cell]
) -> None:
    write_run(tmp_path, **BOOTSTRAPPED, dataset__relabel_from=str(tmp_path / "gone"))
    assert _rows(tmp_path, cells) == []


def test_bootstrapped_alternatives_have_labels_of_their_own(tmp_path: Path, cells: list[Cell]) -> None:
    mixup = {**EXACT, "model__name": "resnet32_wide", "augmentation__name": "mixup"}
    for alpha, error in ((1, 7.0), (8, 6.5)):
        mixup["augmentation__mixup_alpha"] = alpha
        source = write_run(tmp_path / "labels", **mixup, dataset__label_noise=0.2)
        write_run(tmp_path, {"test_error_pct": error}, **mixup, dataset__relabel_from=str(source))
    (row,) = [row for row in _rows(tmp_path, cells) if row.cell.method == "bootstrap_mixup"]
    assert (row.top1.mean, row.alternative) == (6.5, "augmentation.mixup_alpha=8")
    assert row.not_run == ("augmentation.mixup_alpha=16", "augmentation.mixup_alpha=32")
