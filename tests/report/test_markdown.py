"""Tests of sam/report/markdown.py."""

import re
from pathlib import Path

from sam.paper.cells import read_cells
from sam.record.reader import find_runs
from sam.report.groups import group_runs
from sam.report.markdown import render_comparison
from sam.report.paper_rows import match_paper
from sam.report.table import build_setting_tables
from tests.record.run_directories import falling_errors, write_run

CELLS = read_cells(Path(__file__).resolve().parents[2] / "results" / "paper" / "cells.csv")
EXACT = {"optimizer__weight_decay_in": "loss", "model__init_seed": 0}


def _render(root: Path) -> str:
    runs, problems = find_runs([root])
    groups, _ = group_runs(runs)
    interrupted = [run for run in runs if run.result is None]
    blocks = build_setting_tables(groups, match_paper(groups, runs, CELLS))
    return render_comparison(blocks, [], interrupted, [str(problem) for problem in problems])


def test_comparison_reads_as_expected(tmp_path: Path) -> None:
    for seed, sgd, sam in ((0, 4.0, 3.0), (1, 6.0, 3.0)):
        write_run(tmp_path, {"test_error_pct": sgd}, **EXACT, seed=seed)
        write_run(tmp_path, {"test_error_pct": sam}, **EXACT, seed=seed, optimizer__name="sam")
    lines = _render(tmp_path).splitlines()
    assert lines[0] == "# Comparison of runs"
    assert lines[2] == "## cifar10, wrn_28_10, basic, epochs 200, batch 256, m 32"
    table = [line for line in lines if line.startswith("|")]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]] == [
        ["SGD", "5.00 ± 12.71", "3.5 ± 0.1 (Table 1)", "-", "-", "0.10 ± 0.00", "0.02 ± 0.00", "100", "2"],
        [
            "SAM rho=0.05",
            "3.00 ± 0.00",
            "2.7 ± 0.1 (Table 1)",
            "-2.00 ± 12.71",
            "0.3 / 0.5 / 0.3",
            "0.10 ± 0.00",
            "0.02 ± 0.00",
            "100",
            "2",
        ],
    ]


def test_comparison_columns_line_up(tmp_path: Path) -> None:
    write_run(tmp_path, {"test_error_pct": 12.5})
    write_run(tmp_path, optimizer__name="sam", optimizer__rho=0.123456)
    table = [line for line in _render(tmp_path).splitlines() if line.startswith("|")]
    places = [[at for at, letter in enumerate(line) if letter == "|"] for line in table]
    assert len(table) == 4
    assert all(re.fullmatch(" -+:? ", cell) for cell in table[1].strip("|").split("|"))
    assert all(place == places[0] for place in places)


def test_comparison_of_one_seed_shows_no_interval(tmp_path: Path) -> None:
    write_run(tmp_path, {"test_error_pct": 3.25})
    assert " 3.25 |" in _render(tmp_path)


def test_comparison_counts_diverged_runs(tmp_path: Path) -> None:
    write_run(tmp_path, {"status": "diverged", "test_error_pct": None}, seed=0)
    write_run(tmp_path, {"status": "diverged", "test_error_pct": None}, seed=1)
    assert "| 0 (2 diverged) |" in _render(tmp_path)


def test_comparison_marks_runs_that_depart_from_the_paper(tmp_path: Path) -> None:
    write_run(tmp_path, **EXACT)
    assert "± 0.1*" not in _render(tmp_path)
    write_run(tmp_path, **EXACT, optimizer__name="sam", optimizer__rho=0.1)
    text = _render(tmp_path)
    assert " 3.5 ± 0.1 (Table 1) |" in text
    assert " 2.7 ± 0.1* (Table 1) |" in text
    assert "A * marks runs" in text


def test_comparison_of_validation_errors_calls_them_so(tmp_path: Path) -> None:
    write_run(tmp_path, dataset__validation="last")
    text = _render(tmp_path)
    assert "m 32, validation on the last tenth\n" in text
    assert "| Validation error (%) |" in text
    assert "Test error" not in text
    assert "(Table" not in text


def test_comparison_puts_sections_between_tables_and_lists() -> None:
    text = render_comparison([], ["## One", "", "## Two"], warnings=["lost"])
    assert text == "# Comparison of runs\n\n## One\n\n## Two\n\n## Left out\n\n- lost\n"


def test_comparison_of_spoiled_labels_shows_train_error_by_both(tmp_path: Path) -> None:
    errors = {"train_error_pct": 41.25, "train_clean_error_pct": 3.5}
    write_run(tmp_path, errors, dataset__label_noise=0.4)
    text = _render(tmp_path)
    assert "| Train error, noisy / clean labels (%) |" in text
    assert " 41.25 / 3.50 |" in text


def test_comparison_of_spoiled_labels_takes_runs_without_clean_error(tmp_path: Path) -> None:
    write_run(tmp_path, {"train_error_pct": 41.25}, dataset__label_noise=0.4)
    assert " 41.25 / - |" in _render(tmp_path)


def test_comparison_lists_runs_that_have_not_ended(tmp_path: Path) -> None:
    directory = write_run(tmp_path, {"status": "interrupted"}, falling_errors(37, 9.0))
    assert f"{directory.name}: interrupted or still running, epoch 37 of 200" in _render(tmp_path)


def test_comparison_lists_what_was_left_out(tmp_path: Path) -> None:
    (write_run(tmp_path) / "result.json").write_text("{")
    assert "## Left out" in _render(tmp_path)
