"""Tests of sam/report/sharpness_tables.py."""

import math
from pathlib import Path

import pytest

from sam.record.reader import find_runs
from sam.report.groups import group_runs
from sam.report.interval import Estimate, estimate, paired_difference
from sam.report.sharpness_tables import SharpnessTable, format_figures, sharpness_tables
from tests.record.analysis_files import rise_row, write_analysis, write_hessian, write_sharpness
from tests.record.run_directories import write_run


def _tables(root: Path) -> list[SharpnessTable]:
    return sharpness_tables(group_runs(find_runs([root])[0])[0])


def test_hessian_table_pairs_the_seeds(tmp_path: Path) -> None:
    sgd, sam = {0: 20.0, 1: 24.0, 2: 28.0}, {0: 10.0, 1: 15.0, 5: 99.0}
    for method, values in (("sgd", sgd), ("sam", sam)):
        for seed, value in values.items():
            write_hessian(write_run(tmp_path, seed=seed, optimizer__name=method), [value] * 5)
    (table,) = _tables(tmp_path)
    # Computed by hand: differences -10 and -9, mean -9.5, t(1 degree, 97.5 %) = 12.706, s = 1 / sqrt 2.
    assert math.isclose(12.706 * math.sqrt(0.5) / math.sqrt(2), 6.353)
    mean = estimate(list(sgd.values()))
    assert mean is not None
    assert table.text.header[1:3] == ["Largest eigenvalue", "Largest eigenvalue: difference to SGD"]
    assert table.text.rows[0][:3] == ["SGD", f"24.0 ± {mean.half_width:.1f}", "-"]
    assert table.text.rows[1][2] == "-9.50 ± 6.35 (n = 2)"
    assert [row[-1] for row in table.text.rows] == ["3", "3"]
    assert table.caption.endswith(
        "after epoch 200, on 500 train images with running statistics of batch norm"
    )


def test_sharpness_table_has_a_row_for_each_m_and_condition(tmp_path: Path) -> None:
    for method, factor in (("sgd", 1.0), ("sam", 0.5)):
        for seed in (0, 1):
            directory = write_run(tmp_path, seed=seed, optimizer__name=method)
            write_sharpness(directory, {16: 0.1 * factor, 1: 0.4 * factor})
    (table,) = _tables(tmp_path)
    assert table.text.header == ["Method", "m", "Rise of the loss", "Difference to SGD", "n"]
    assert table.text.rows == [
        ["SGD", "1", "0.400 ± 0.000", "-", "2"],
        ["SAM rho=0.05", "1", "0.200 ± 0.000", "-0.200 ± 0.000", "2"],
        ["SGD", "16", "0.100 ± 0.000", "-", "2"],
        ["SAM rho=0.05", "16", "0.0500 ± 0.0000", "-0.0500 ± 0.0000", "2"],
    ]


def test_sharpness_table_of_several_ascent_steps_tells_them(tmp_path: Path) -> None:
    write_sharpness(write_run(tmp_path), {16: 0.1}, steps=(1, 3))
    (table,) = _tables(tmp_path)
    assert [row[:3] for row in table.text.rows] == [["SGD", "16", "1"], ["SGD", "16", "3"]]


def test_tables_of_a_figure_that_is_missing_have_a_dash(tmp_path: Path) -> None:
    write_analysis(write_run(tmp_path), "hessian", {"lambda_max": 20.0, "trace": math.nan})
    (table,) = _tables(tmp_path)
    assert table.text.rows == [["SGD", "20.0", "-", "-", "-", "-", "-", "1"]]


def test_tables_pass_over_a_broken_analysis(tmp_path: Path) -> None:
    write_sharpness(write_run(tmp_path, seed=0), {16: 0.1})
    write_sharpness(write_run(tmp_path, seed=1), {16: math.nan})
    write_sharpness(write_run(tmp_path, seed=2), {16: 0.1}).path.write_text("{")
    (table,) = _tables(tmp_path)
    assert table.text.rows[0][2:] == ["0.100", "-", "1"]


def test_sharpness_table_joins_the_analyses_of_an_epoch_and_counts_each_cell(tmp_path: Path) -> None:
    for seed in (0, 1):
        directory = write_run(tmp_path, seed=seed)
        write_sharpness(directory, {16: 0.1})
        if seed == 0:
            write_sharpness(directory, {4: 0.2})
    (table,) = _tables(tmp_path)
    assert [[row[1], row[2], row[4]] for row in table.text.rows] == [
        ["4", "0.200", "1"],
        ["16", "0.100 ± 0.000", "2"],
    ]


def test_hessian_table_joins_the_analyses_of_an_epoch_and_counts_each_cell(tmp_path: Path) -> None:
    for seed in (0, 1):
        directory = write_run(tmp_path, seed=seed)
        write_analysis(directory, "hessian", {"lambda_max": 20.0})
        if seed == 0:
            write_analysis(directory, "hessian", {"trace": 70.0})
    (table,) = _tables(tmp_path)
    assert [table.text.rows[0][place] for place in (1, 5, 7)] == ["20.0 ± 0.0", "70.0 (n = 1)", "2"]


def test_sharpness_table_names_an_adaptive_ball(tmp_path: Path) -> None:
    asked = {"adaptive": True, "rho": 2.0}
    write_analysis(write_run(tmp_path), "sharpness", {"rows": [rise_row(1, 0.1)]}, settings=asked)
    (table,) = _tables(tmp_path)
    assert table.caption.startswith("m-sharpness in an adaptive ball of radius 2.0, after epoch 200")


def test_tables_without_analyses_are_none(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert _tables(tmp_path) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Estimate(123.456, 1.234, 3), "123 ± 1"),
        (Estimate(0.0012345, None, 1), "0.00123 (n = 1)"),
        (Estimate(0.0001, 12.34, 3), "0.0 ± 12.3"),
        (Estimate(0.0, 0.0, 3), "0 ± 0"),
        (None, "-"),
    ],
)
def test_format_figures_has_three_digits(value: Estimate | None, text: str) -> None:
    assert format_figures(value, num_runs=3) == text


def test_format_figures_signs_differences() -> None:
    difference = paired_difference({0: 2.0, 1: 2.0}, {0: 1.0, 1: 1.0})
    assert format_figures(difference, num_runs=2, sign="+") == "+1.00 ± 0.00"
