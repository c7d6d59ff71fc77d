"""Tests of sam/report/html/runs.py and its templates."""

import re
from pathlib import Path

import pytest

from sam.report.comparison import read_comparison
from sam.report.html.page import environment
from sam.report.html.runs import run_lists
from sam.report.html.tables import MANY
from tests.record.run_directories import falling_errors, write_run

CELLS = Path(__file__).resolve().parents[3] / "results" / "paper" / "cells.csv"
ORIGIN = {"device": "cpu", "threads": 2, "commit": "0123abcd", "versions": {"torch": "2.9", "sam": "0.1"}}


def _render(root: Path, section: str = "runs") -> str:
    comparison = read_comparison([root], CELLS)
    return environment().get_template(f"{section}.html").render(comparison=comparison)


def test_runs_of_a_condition_stand_together_with_their_config(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, {**ORIGIN, "peak_memory_mib": 512.4}, seed=seed, optimizer__name="sam")
    text = _render(tmp_path)
    assert text.count("<details>") == 1
    assert "SAM rho=0.05: cifar10, wrn_28_10, basic, epochs 200, batch 256, m 32 (2 runs)" in text
    assert "<code>model.depth=28</code>" in text
    assert "<code>seed=0</code>" not in text
    assert "optimizer.nesterov" not in text  # it has its default
    assert (
        "Trained with device cpu, precision fp32, threads 2, processes 1, commit 0123abcd, "
        "versions torch 2.9, sam 0.1."
    ) in text
    assert text.count("<td>512</td>") == 2


def test_runs_that_differ_in_a_key_that_decides_no_number_show_it_in_a_column(tmp_path: Path) -> None:
    write_run(tmp_path, ORIGIN, seed=0)
    write_run(tmp_path, {**ORIGIN, "device": "cuda"}, seed=1, runtime__threads=4)
    text = _render(tmp_path)
    assert "(2 runs)" in text
    assert ">Device</th>" in text
    assert ">runtime.threads</th>" in text
    assert '<td class="text">cuda</td>' in text
    assert "Trained with precision fp32, threads 2" in text


def test_runs_that_diverged_say_where_they_stopped(tmp_path: Path) -> None:
    result = {"status": "diverged", "message": "loss is nan at step 12", "test_error_pct": None}
    write_run(tmp_path, result, falling_errors(3, 9.0))
    text = _render(tmp_path)
    assert "diverged: loss is nan at step 12" in text
    assert "<td>3</td>" in text


def test_interrupted_runs_show_their_last_epoch(tmp_path: Path) -> None:
    write_run(tmp_path, {"status": "interrupted"}, falling_errors(4, 9.0))
    text = _render(tmp_path, "unfinished")
    assert "<td>4 of 200</td>" in text
    assert "<td>9.00</td>" in text
    assert run_lists(read_comparison([tmp_path], CELLS)) == []


def test_runs_of_many_conditions_stand_together_by_setting(tmp_path: Path) -> None:
    for place in range(MANY):
        write_run(tmp_path, ORIGIN, epochs=place + 1)
    write_run(tmp_path, ORIGIN, epochs=1, optimizer__name="sam", optimizer__rho=0.2)
    text = _render(tmp_path)
    assert text.count("<details>") == MANY
    setting = text[text.index("epochs 1, batch") : text.index("epochs 2, batch")]
    assert "(2 runs)" in setting
    assert f"In {tmp_path}/cifar10/wrn_28_10/basic:" in setting
    assert re.findall(r'<th scope="row">([^/<]+)/seed0-\w+</th><td class="text">([^<]*)', setting) == [
        ("sgd", "SGD"),
        ("sam-rho0.2", "SAM rho=0.2"),
    ]
    assert "optimizer.rho" not in setting and "optimizer.name" not in setting  # the column Method shows them


@pytest.mark.slow
def test_many_interrupted_runs_are_folded(tmp_path: Path) -> None:
    for seed in range(MANY + 1):
        write_run(tmp_path, {"status": "interrupted"}, seed=seed)
    text = _render(tmp_path, "unfinished")
    assert text.startswith("<details>")
    assert f"<summary>{MANY + 1} runs</summary>" in text
