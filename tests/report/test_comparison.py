"""Tests of sam/report/comparison.py."""

from pathlib import Path

import pytest

from sam.report.comparison import read_comparison
from tests.record.run_directories import write_run

CELLS = Path(__file__).resolve().parents[2] / "results" / "paper" / "cells.csv"


def test_comparison_holds_runs_and_what_is_wrong_with_others(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path / "copy")
    write_run(tmp_path, {"status": "interrupted"}, seed=1)
    (write_run(tmp_path, seed=2) / "result.json").write_text("{")
    comparison = read_comparison([tmp_path], CELLS)
    assert len(comparison.runs) == 3
    assert [run.config["seed"] for run in comparison.interrupted] == [1]
    assert len(comparison.groups) == len(comparison.setting_tables) == 1
    assert comparison.paper_rows[0].cell.name == "table1/cifar10/wrn_28_10_200/basic/sgd"
    assert ["cannot be read" in line for line in comparison.warnings] == [True, False]
    assert "1 copy of a run" in comparison.warnings[1]


def test_comparison_without_the_papers_cells_is_one_with_a_warning(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "cells.csv").write_text("cell\n")
    comparison = read_comparison([tmp_path], tmp_path / "cells.csv")
    assert comparison.paper_rows == []
    assert comparison.warnings[0].startswith("the paper's numbers are not shown: ")


def test_comparison_needs_a_folder_with_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder .*absent; name the folder that holds your runs"):
        read_comparison([tmp_path / "absent"], CELLS)
    with pytest.raises(ValueError, match="no readable run .* train one first: python train.py"):
        read_comparison([tmp_path], CELLS)
