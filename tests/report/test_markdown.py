"""Tests of sam/report/markdown.py."""

import re
from pathlib import Path

from sam.report.groups import group_runs
from sam.report.interval import Estimate
from sam.report.markdown import format_estimate, render_comparison
from sam.report.paper import PrintedCell
from sam.report.runs import find_runs
from sam.report.table import build_blocks
from tests.report.run_directories import falling_errors, write_run

CELL = PrintedCell(("cifar10", "wrn_28_10", "basic", "sam"), "1", 200, 2.7, 0.1, False, "2.7 ± 0.1")


def _render(root: Path) -> str:
    runs, problems = find_runs([root])
    groups, _ = group_runs(runs)
    interrupted = [run for run in runs if run.result is None]
    return render_comparison(build_blocks(groups, [CELL]), interrupted, [str(p) for p in problems])


def test_comparison_reads_as_expected(tmp_path: Path) -> None:
    for seed, sgd, sam in ((0, 4.0, 3.0), (1, 6.0, 3.0)):
        write_run(tmp_path, {"test_error_pct": sgd}, seed=seed)
        write_run(tmp_path, {"test_error_pct": sam}, seed=seed, optimizer__name="sam")
    lines = _render(tmp_path).splitlines()
    assert lines[0] == "# Comparison of runs"
    assert lines[2] == "## cifar10, wrn_28_10, basic, epochs 200, batch 256, m 32"
    table = [line for line in lines if line.startswith("|")]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]] == [
        ["SGD", "5.00 ± 12.71", "-", "-", "0.10 ± 0.00", "0.02 ± 0.00", "100", "2"],
        [
            "SAM rho=0.05",
            "3.00 ± 0.00",
            "2.7 ± 0.1 (Table 1)",
            "-2.00 ± 12.71",
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


def test_comparison_warns_of_a_selected_rho_only_after_a_sweep(tmp_path: Path) -> None:
    write_run(tmp_path, optimizer__name="sam", optimizer__rho=0.05)
    assert "optimistic" not in _render(tmp_path)
    write_run(tmp_path, optimizer__name="sam", optimizer__rho=0.1)
    text = _render(tmp_path)
    assert "SAM rho=0.05 (best)" in text
    assert "selected on that very test error" in text


def test_comparison_of_a_validation_sweep_says_which_rho_to_train_with(tmp_path: Path) -> None:
    for rho, error in ((0.05, 3.5), (0.1, 2.5), (0.2, 4.0)):
        sweep = {"optimizer__name": "sam", "optimizer__rho": rho, "dataset__validation": "last"}
        write_run(tmp_path, {"test_error_pct": error}, **sweep)
    text = _render(tmp_path)
    assert "m 32, validation on the last tenth\n" in text
    assert "| Validation error (%) |" in text
    assert "Test error" not in text
    assert "SAM rho=0.1 (best)" in text
    assert (
        "\nSAM: best rho on the validation split: 0.1 "
        "(train on all with optimizer.rho=0.1 dataset.validation=none)\n"
    ) in text
    assert "optimistic" not in text
    assert "(Table" not in text


def test_comparison_of_a_test_sweep_recommends_no_rho(tmp_path: Path) -> None:
    for rho in (0.05, 0.1):
        write_run(tmp_path, optimizer__name="sam", optimizer__rho=rho)
    text = _render(tmp_path)
    assert "(best)" in text
    assert "best rho" not in text
    assert "alidation error (%)" not in text


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


def test_comparison_keeps_markup_out_of_its_text() -> None:
    text = render_comparison([], warnings=["a | b\n# *c* <d>"])
    assert text.endswith("- a \\| b # \\*c\\* \\<d>\n")


def test_format_estimate_tells_a_differing_number_of_values() -> None:
    assert format_estimate(Estimate(0.5, None, 1), 3) == "0.50 (n = 1)"


def test_format_estimate_signs_differences() -> None:
    assert format_estimate(Estimate(0.5, 0.25, 3), 3, sign="+") == "+0.50 ± 0.25"
    assert format_estimate(Estimate(-0.5, 0.25, 3), 3, sign="+") == "-0.50 ± 0.25"
