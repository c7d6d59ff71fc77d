"""Tests of sam/report/rho_sweeps.py."""

from pathlib import Path
from typing import Any

from sam.record.reader import find_runs
from sam.report.groups import group_runs
from sam.report.rho_sweeps import RhoSweep, build_rho_sweeps
from tests.record.run_directories import write_run


def _write(root: Path, validation: str, errors: dict[float, float], **changes: Any) -> None:
    for rho, error in errors.items():
        sweep = {"optimizer__name": "sam", "optimizer__rho": rho, "dataset__validation": validation}
        write_run(root, {"test_error_pct": error}, **sweep, **changes)


def _sweeps(root: Path) -> list[RhoSweep]:
    return build_rho_sweeps(group_runs(find_runs([root])[0])[0])


def _errors(sweep: RhoSweep) -> list[tuple[float, float | None, float | None]]:
    errors = [(row.rho, row.validation_error_pct, row.test_error_pct) for row in sweep.rows]
    return [(rho, val and val.mean, test and test.mean) for rho, val, test in errors]


def test_sweep_selects_by_validation_error(tmp_path: Path) -> None:
    _write(tmp_path, "last", {0.2: 4.0, 0.05: 3.0, 0.1: 2.5})
    _write(tmp_path, "none", {0.05: 3.1, 0.5: 2.0})
    (sweep,) = _sweeps(tmp_path)
    assert _errors(sweep) == [(0.05, 3.0, 3.1), (0.1, 2.5, None), (0.2, 4.0, None), (0.5, None, 2.0)]
    assert (sweep.method, sweep.validation, sweep.split, sweep.selected.rho) == (
        "SAM",
        "last",
        "validation",
        0.1,
    )
    assert sweep.title == "cifar10, wrn_28_10, basic, epochs 200, batch 256, m 32"


def test_sweep_without_validation_selects_by_test_error(tmp_path: Path) -> None:
    _write(tmp_path, "none", {0.05: 3.0, 0.1: 2.5, 0.2: 2.5})
    (sweep,) = _sweeps(tmp_path)
    assert (sweep.validation, sweep.split, sweep.selected.rho) == ("none", "test", 0.1)


def test_sweep_with_one_validated_rho_selects_by_test_error(tmp_path: Path) -> None:
    _write(tmp_path, "random", {0.05: 1.0})
    _write(tmp_path, "none", {0.05: 3.0, 0.1: 2.5})
    (sweep,) = _sweeps(tmp_path)
    assert (sweep.validation, sweep.split, sweep.selected.rho) == ("random", "test", 0.1)


def test_sweep_averages_over_seeds(tmp_path: Path) -> None:
    for seed, error in ((0, 2.0), (1, 4.0)):
        _write(tmp_path, "last", {0.05: error, 0.1: 3.5}, seed=seed)
    (sweep,) = _sweeps(tmp_path)
    error = sweep.selected.validation_error_pct
    assert error is not None
    assert (sweep.selected.rho, error.mean, error.num_values) == (0.05, 3.0, 2)


def test_both_ways_of_holding_out_make_two_sweeps(tmp_path: Path) -> None:
    _write(tmp_path, "last", {0.05: 3.0, 0.1: 2.5})
    _write(tmp_path, "random", {0.05: 2.0, 0.1: 2.5})
    _write(tmp_path, "none", {0.05: 3.3})
    assert [(sweep.validation, sweep.selected.rho, _errors(sweep)) for sweep in _sweeps(tmp_path)] == [
        ("last", 0.1, [(0.05, 3.0, 3.3), (0.1, 2.5, None)]),
        ("random", 0.05, [(0.05, 2.0, 3.3), (0.1, 2.5, None)]),
    ]


def test_sweeps_are_apart_by_method_and_setting(tmp_path: Path) -> None:
    _write(tmp_path, "last", {0.05: 3.0, 0.1: 2.5})
    _write(tmp_path, "last", {0.5: 2.0, 1.0: 2.5}, optimizer__adaptive=True)
    _write(tmp_path, "last", {0.05: 2.0, 0.1: 2.5}, epochs=30)
    assert sorted((sweep.method, sweep.selected.rho) for sweep in _sweeps(tmp_path)) == [
        ("SAM", 0.05),
        ("SAM", 0.1),
        ("adaptive SAM", 0.5),
    ]


def test_one_rho_is_no_sweep(tmp_path: Path) -> None:
    _write(tmp_path, "last", {0.05: 3.0})
    _write(tmp_path, "none", {0.05: 3.0})
    write_run(tmp_path)
    assert _sweeps(tmp_path) == []


def test_diverged_rho_is_listed_but_never_selected(tmp_path: Path) -> None:
    _write(tmp_path, "last", {0.05: 3.0, 0.1: 3.5})
    diverged = {"status": "diverged", "test_error_pct": 0.0}
    write_run(tmp_path, diverged, optimizer__name="sam", optimizer__rho=0.5, dataset__validation="last")
    (sweep,) = _sweeps(tmp_path)
    assert _errors(sweep)[-1] == (0.5, None, None)
    assert sweep.selected.rho == 0.05
