"""Tests of sam/report/markdown_sections.py."""

from pathlib import Path
from typing import Any

from sam.paper.cells import read_cells
from sam.record.reader import find_runs
from sam.report.equal_compute import build_compute_families
from sam.report.groups import group_runs
from sam.report.markdown_sections import render_families, render_paper_rows, render_sweeps
from sam.report.paper_rows import compare_with_paper, match_paper
from sam.report.rho_sweeps import build_rho_sweeps
from tests.record.run_directories import write_run

CELLS = read_cells(Path(__file__).resolve().parents[2] / "results" / "paper" / "cells.csv")
EXACT = {"optimizer__weight_decay_in": "loss", "model__init_seed": 0}


def _paper_rows(root: Path) -> str:
    runs, _ = find_runs([root])
    groups, _ = group_runs(runs)
    return render_paper_rows(compare_with_paper(groups, match_paper(groups, runs, CELLS), CELLS))


def _table(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "--" not in line]


def _write(root: Path, errors: list[float], **changes: Any) -> None:
    for seed, error in enumerate(errors):
        write_run(root, {"test_error_pct": error}, seed=seed, **changes)


def test_paper_rows_read_as_expected(tmp_path: Path) -> None:
    _write(tmp_path, [3.5, 3.6, 3.7], **EXACT, epochs=400)
    _write(tmp_path, [3.0], **EXACT, optimizer__name="sam", runtime__precision="bf16", optimizer__rho=0.1)
    text = _paper_rows(tmp_path)
    assert _table(text) == [
        ["Cell", "Paper (%)", "Ours (%)", "Difference (points)", "Verdict", "Notes"],
        [
            "table1/cifar10/wrn_28_10_200/basic/sgd",
            "3.5 ± 0.1",
            "3.60 ± 0.25 (n = 3)",
            "+0.10",
            "inside both",
            "1",
        ],
        [
            "table1/cifar10/wrn_28_10_200/basic/sam",
            "2.7 ± 0.1",
            "3.00 (n = 1)",
            "+0.30",
            "too few seeds",
            "2",
        ],
        [
            "table9/cifar10/wrn_28_10_200/basic/sgd",
            "3.5",
            "3.60 ± 0.25 (n = 3)",
            "+0.10",
            "inside ours",
            "1",
        ],
    ]
    assert "\n1. epochs=400, epochs=200 not run\n" in text
    assert "\n2. Departures: optimizer.rho=0.1 (0.05), runtime.precision=bf16 (fp32)\n" in text


def test_paper_rows_say_that_all_alternatives_were_run(tmp_path: Path) -> None:
    for epochs, error in ((200, 3.5), (400, 3.4)):
        _write(tmp_path, [error], **EXACT, epochs=epochs)
    assert "\n1. epochs=400, the best of all alternatives\n" in _paper_rows(tmp_path)


def test_paper_rows_name_the_doubt_about_a_cell(tmp_path: Path) -> None:
    _write(tmp_path, [16.5], **EXACT, dataset__name="cifar100", optimizer__name="sam")
    text = _paper_rows(tmp_path)
    assert "table9/cifar100/wrn_28_10_200/basic/sam: equal to Table 1 to the digit, where Table 6" in text


def test_paper_rows_of_imagenet_have_top_5_errors(tmp_path: Path) -> None:
    names = {"dataset__name": "imagenet", "model__name": "resnet50", "augmentation__name": "inception"}
    write_run(tmp_path, {"test_error_pct": 23.0, "test_top5_error_pct": 6.5}, **names, epochs=100)
    write_run(tmp_path, **EXACT)
    found = {row[0]: row[5:7] for row in _table(_paper_rows(tmp_path))}
    assert found["Cell"] == ["Paper, top-5 (%)", "Ours, top-5 (%)"]
    assert found["table2/imagenet/resnet50_100/inception/sgd"] == ["6.62 ± 0.11", "6.50 (n = 1)"]
    assert found["table1/cifar10/wrn_28_10_200/basic/sgd"] == ["-", "-"]


def test_sections_without_content_are_empty(tmp_path: Path) -> None:
    write_run(tmp_path, model__name="resnet8")
    groups, _ = group_runs(find_runs([tmp_path])[0])
    assert _paper_rows(tmp_path) == ""
    assert render_families(build_compute_families(groups)) == ""
    assert render_sweeps(build_rho_sweeps(groups)) == ""


def test_equal_compute_reads_as_expected(tmp_path: Path) -> None:
    for name, epochs, passes, error in (
        ("sgd", 200, 1, 4.0),
        ("sgd", 400, 1, 3.5),
        ("sam", 200, 2, 3.0),
        ("sam", 400, 2, 2.5),
    ):
        for seed in (0, 1):
            counts = {"steps": epochs, "forward_backward_passes": epochs * passes}
            result = {"test_error_pct": error, **counts, "seconds": 10.0 * epochs}
            write_run(tmp_path, result, seed=seed, optimizer__name=name, epochs=epochs)
    text = render_families(build_compute_families(group_runs(find_runs([tmp_path])[0])[0]))
    assert "\n### cifar10, wrn_28_10, basic, batch 256, m 32\n" in text
    assert _table(text)[1:] == [
        ["SGD", "200", "200", "4.00 ± 0.00", "-", "-", "2000", "2"],
        ["SGD", "400", "400", "3.50 ± 0.00", "-", "-", "4000", "2"],
        [
            "SAM rho=0.05",
            "200",
            "400",
            "3.00 ± 0.00",
            "-0.50 ± 0.00 (SGD, 400 epochs)",
            "- / 0.5 / -",
            "2000",
            "2",
        ],
        ["SAM rho=0.05", "400", "800", "2.50 ± 0.00", "-", "-", "4000", "2"],
    ]
    assert "\n- not run yet: optimizer=sgd epochs=800, to compare with SAM rho=0.05 (400 epochs)\n" in text
    assert "epochs=400, to compare" not in text
    assert "Equal passes do not mean equal seconds" in text


def _write_sweep(root: Path, validation: str, errors: dict[float, float]) -> None:
    for rho, error in errors.items():
        sweep = {"optimizer__name": "sam", "optimizer__rho": rho, "dataset__validation": validation}
        write_run(root, {"test_error_pct": error}, **sweep)


def _sweeps(root: Path) -> str:
    return render_sweeps(build_rho_sweeps(group_runs(find_runs([root])[0])[0]))


def test_sweep_by_validation_reads_as_expected(tmp_path: Path) -> None:
    _write_sweep(tmp_path, "last", {0.05: 3.0, 0.1: 2.5})
    _write_sweep(tmp_path, "none", {0.05: 3.2})
    diverged = {"status": "diverged", "test_error_pct": None}
    write_run(tmp_path, diverged, optimizer__name="sam", optimizer__rho=0.5, dataset__validation="last")
    text = _sweeps(tmp_path)
    assert "\n### SAM: cifar10, wrn_28_10, basic, epochs 200, batch 256, m 32\n" in text
    assert "\nValidation: the last tenth of the training images (dataset.validation=last).\n" in text
    assert _table(text) == [
        ["rho", "Validation error (%)", "Test error (%)", "Mark"],
        ["0.05", "3.00 (n = 1)", "3.20 (n = 1)", ""],
        ["0.1", "2.50 (n = 1)", "-", "selected"],
        ["0.5", "- (1 diverged)", "-", ""],
    ]
    assert "on all training images (optimizer.rho=0.1 dataset.validation=none)" in text
    _write_sweep(tmp_path, "none", {0.1: 3.0})
    assert "dataset.validation=none" not in _sweeps(tmp_path)


def test_sweep_on_the_test_split_is_marked_as_optimistic(tmp_path: Path) -> None:
    _write_sweep(tmp_path, "none", {0.05: 3.0, 0.1: 2.5})
    text = _sweeps(tmp_path)
    assert "No training images were held out" in text
    assert _table(text)[1:] == [
        ["0.05", "-", "3.00 (n = 1)", ""],
        ["0.1", "-", "2.50 (n = 1)", "selected on the test split: optimistic"],
    ]
