"""Tests of sam/report/as_json.py."""

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sam.paper.cells import CELLS
from sam.report.as_json import comparison_data
from sam.report.comparison import Comparison, read_comparison
from sam.report.settings import Setting
from sam.report.text_tables import compute_table, paper_rows_table, setting_table, sweep_table
from tests.record.run_directories import falling_errors, write_run


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """Three seeds of SGD and of SAM with two values of rho, SAM with p = inf, and an unfinished run."""
    for seed in range(3):
        counts = {"steps": 100, "forward_backward_passes": 100, "test_error_pct": 3.5 + 0.1 * seed}
        write_run(tmp_path, counts, falling_errors(5, 3.5), seed=seed)
        for rho in (0.05, 0.1):
            counts |= {"forward_backward_passes": 200, "test_error_pct": 2.7 + 0.13 * seed + rho}
            write_run(
                tmp_path, counts, falling_errors(5, 3), seed=seed, optimizer__name="sam", optimizer__rho=rho
            )
    write_run(tmp_path, {"status": "diverged"}, seed=4)
    write_run(tmp_path, optimizer__name="sam", optimizer__p=math.inf)
    write_run(tmp_path, {"status": "interrupted"}, falling_errors(3, 9.0), seed=5)
    return read_comparison([tmp_path], CELLS)


def _numbers(data: Any) -> Iterator[float]:
    if isinstance(data, dict | list):
        for item in data.values() if isinstance(data, dict) else data:
            yield from _numbers(item)
    elif isinstance(data, int | float):
        yield data


def test_data_has_every_number_of_the_tables(comparison: Comparison) -> None:
    tables = [setting_table(block) for block in comparison.setting_tables]
    tables += [paper_rows_table(comparison.paper_rows)[0]]
    tables += [compute_table(family) for family in comparison.compute_families]
    tables += [sweep_table(sweep) for sweep in comparison.rho_sweeps]
    assert len(tables) == 4
    shown = {text for table in tables for row in table.rows for cell in row[1:] for text in _shown(cell)}
    data = list(_numbers(comparison_data(comparison)))
    known = {f"{abs(number):{form}}" for number in data for form in (".0f", ".1f", ".2f", "g", ".2g")}
    assert len(shown) > 15
    assert shown <= known


def _shown(cell: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?", re.sub(r"table\S*|Table \d+", "", cell))


def test_data_is_json_with_plain_numbers_and_says_what_each_condition_is(comparison: Comparison) -> None:
    data = json.loads(json.dumps(comparison_data(comparison), allow_nan=False))
    assert data["layout"] == 1
    (setting,) = data["settings"]
    sgd, sam, *_ = setting["rows"]
    assert (sgd["label"], sgd["n"], sgd["diverged"], sgd["rho"]) == ("SGD", 3, 1, None)
    assert [run["error_pct"] for run in sgd["runs"]] == [3.5, 3.6, 3.7]
    assert sgd["error_pct"]["mean"] == pytest.approx(3.6)
    assert sgd["paper"]["cell"] == "table1/cifar10/wrn_28_10_200/basic/sgd"
    difference = sam["difference_to_sgd_points"]
    assert difference["mean"] == pytest.approx(-0.72)
    assert 0 < difference["p_paired_t"] < difference["p_welch"] < 0.01 < difference["p_sign_flip"] == 0.25
    assert sam["seeds_without_partner"] == {"condition": [], "sgd": []}
    (family,) = data["equal_compute"]
    assert family["rows"][-1]["sgd_epochs_not_run"] == 400
    assert data["rho_sweeps"][0]["selected_rho"] == 0.05
    assert (data["unfinished"][0]["epoch"], data["unfinished"][0]["epochs"]) == (3, 200)
    assert {row["verdict"] for row in data["paper"]} >= {"inside both"}


def test_infinite_value_of_a_key_is_a_text(comparison: Comparison) -> None:
    (group, *_) = comparison.groups
    setting = Setting("key", {**group.setting.fields, "optimizer.lr": math.inf})
    changed = Comparison([], [dataclasses.replace(group, setting=setting)], [], {}, [])
    (row,) = json.loads(json.dumps(comparison_data(changed), allow_nan=False))["settings"]
    assert row["keys"]["optimizer.lr"] == "inf"
