"""Tests of sam/report/plan_runs.py."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sam.config.compose import composed
from sam.paper.cells import CELLS
from sam.record.reader import Run, find_runs
from sam.record.run_files import resolved
from sam.report.claims import CLAIMS, LEARNING_RATES, LENGTHS, Claim
from sam.report.plan_runs import (
    COLUMNS,
    CONFIRMATORY,
    SEARCH,
    PlanCondition,
    merged,
    read_rows,
    row_of,
    runs_by_seed,
    table_text,
)
from tests.record.run_directories import make_result, write_run
from tests.report.plan_rows import row

PLAN = {
    "dataset__num_train": 10_000,
    "dataset__subset_seed": "run",
    "dataset__image_size": 16,
    "augmentation__name": "none",
    "model__name": "resnet20",
    "m": 128,
    "runtime__precision": "bf16",
    "epochs": 20,
}
HESSIAN = {
    "analysis": "hessian",
    "epoch": 20,
    "settings": {},
    "split": "train",
    "num_images": 1000,
    "statistics": "evaluation",
}


def _row(root: Path, **changes: Any) -> dict[str, str]:
    write_run(root, {"test_error_pct": 44.5}, [{"epoch": 20}], **{**PLAN, **changes})
    (run,) = find_runs([root])[0]
    return row_of(run)


def test_row_of_a_run_of_the_plan_is_found_as_its_condition(tmp_path: Path) -> None:
    sgd = _row(tmp_path / "sgd", seed=100)
    sam = _row(
        tmp_path / "sam", seed=101, optimizer__name="sam", optimizer__rho=0.2, dataset__label_noise=0.6
    )
    assert runs_by_seed([sgd, sam], PlanCondition("cifar10", 0.0, "sgd", 20, 0.1), CONFIRMATORY) == {100: sgd}
    assert runs_by_seed([sgd, sam], PlanCondition("cifar10", 0.6, "sam", 20, 0.2), CONFIRMATORY) == {101: sam}
    assert (sgd["optimizer.rho"], sgd["test_error_pct"], sgd["torch"]) == ("", "44.5", "2.14.1+cu130")


def test_commands_of_the_plan_make_runs_of_its_tests() -> None:
    plan = (CELLS.parents[1] / "measured" / "plan.md").read_text(encoding="utf-8")
    found = {}
    for line in re.findall(r"^python train.py -m (.*)$", plan, re.MULTILINE):
        words = [
            f"{key}={values.split(',')[0]}" for key, values in (word.split("=") for word in line.split())
        ]
        config = composed(words)
        made = row_of(Run(Path(), resolved(config), {}, config.epochs, make_result(config)))
        for claim in CLAIMS:
            for condition in _conditions(claim):
                for protocol in (SEARCH, CONFIRMATORY):
                    if runs_by_seed([made], condition, protocol):
                        found[line] = (condition.method, condition.epochs, config.seed)
    # The search of both methods begins with its first values; the command of SAM's last part is exploratory.
    assert sorted(found.values()) == [
        ("sam", 20, 50),
        ("sam", 20, 100),
        ("sgd", 20, 50),
        ("sgd", 20, 100),
        ("sgd", 40, 100),
    ]


def _conditions(claim: Claim) -> list[PlanCondition]:
    block = claim.dataset, claim.label_noise
    sgd = [PlanCondition(*block, "sgd", epochs, lr) for epochs in LENGTHS for lr in LEARNING_RATES]
    return sgd + [PlanCondition(*block, "sam", LENGTHS[0], rho) for rho in claim.rhos]


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset__num_test": 5000},
        {"dataset__subset_seed": "fixed"},
        {"optimizer__start": 0.7},
        {"augmentation__mixup_alpha": 8.0},
        {"optimizer__lr": 0.05},
    ],
)
def test_run_of_another_setting_is_no_run_of_the_test(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = _row(tmp_path, seed=100, optimizer__name="sam", optimizer__rho=0.2, **changes)
    assert not runs_by_seed([found], PlanCondition("cifar10", 0.0, "sam", 20, 0.2), CONFIRMATORY)


@pytest.mark.parametrize(
    ("changes", "expected"), [({}, "12.5"), ({"num_images": 500}, ""), ({"epoch": 10}, "")]
)
def test_row_has_the_eigenvalue_of_the_plan_only(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    directory = write_run(tmp_path, {}, [{"epoch": 20}], **PLAN)
    (directory / "analysis").mkdir()
    record = {**HESSIAN, "result": {"lambda_max": 12.5}, **changes}
    (directory / "analysis" / "hessian-epoch20.json").write_text(json.dumps(record))
    (run,) = find_runs([tmp_path])[0]
    assert row_of(run)["lambda_max"] == expected


def test_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [row(CLAIMS[0], "sam", 0.1, seed, 44.0) for seed in (100, 9)]
    path = tmp_path / "runs.csv"
    assert read_rows(path) == []
    path.write_text(table_text(merged([], rows)))
    assert read_rows(path) == rows[::-1]  # sorted by seed


def test_table_without_a_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(",".join(COLUMNS[1:]) + "\n")
    with pytest.raises(ValueError, match=r"runs\.csv lacks the columns dataset\.name"):
        read_rows(tmp_path / "runs.csv")


def test_result_of_the_plan_can_get_its_eigenvalue_but_is_never_replaced() -> None:
    bare = row(CLAIMS[0], "sam", 0.1, 100, 44.0)
    analysed = {**bare, "lambda_max": "3.5"}
    assert merged([bare], [analysed]) == merged([analysed], [bare]) == [analysed]
    with pytest.raises(
        ValueError, match=r"test_error_pct=43\.0 of identity .*, seed 100: the table has 44\.0"
    ):
        merged([bare], [{**bare, "test_error_pct": "43.0"}])
