"""Tests of sam/report/equal_compute.py."""

from pathlib import Path
from typing import Any

import pytest

from sam.record.reader import find_runs
from sam.report.equal_compute import ComputeFamily, ComputeRow, build_compute_families
from sam.report.groups import group_runs
from tests.record.run_directories import write_run


def _write(
    root: Path, name: str, epochs: int, errors: list[float], passes: float = 1, **changes: Any
) -> None:
    for seed, error in enumerate(errors):
        counts = {"steps": 100 * epochs, "forward_backward_passes": 100 * epochs * passes}
        result = {"test_error_pct": error, **counts, "seconds": 10.0 * epochs * passes}
        write_run(root, result, seed=seed, optimizer__name=name, epochs=epochs, **changes)


def _families(root: Path) -> list[ComputeFamily]:
    return build_compute_families(group_runs(find_runs([root])[0])[0])


def _row(family: ComputeFamily, label: str, epochs: int) -> ComputeRow:
    (row,) = [row for row in family.rows if (row.group.label, row.epochs) == (label, epochs)]
    return row


def test_sam_is_compared_with_sgd_at_equal_passes(tmp_path: Path) -> None:
    _write(tmp_path, "sgd", 200, [9.0, 9.0])
    _write(tmp_path, "sgd", 400, [4.0, 6.0])
    _write(tmp_path, "sam", 200, [3.0, 3.0], passes=2)
    (family,) = _families(tmp_path)
    assert family.title == "cifar10, wrn_28_10, basic, batch 256, m 32"
    assert [(row.group.label, row.epochs, row.passes_per_image) for row in family.rows] == [
        ("SGD", 200, 200),
        ("SGD", 400, 400),
        ("SAM rho=0.05", 200, 400),
    ]
    sam = _row(family, "SAM rho=0.05", 200)
    assert sam.partner is not None and sam.difference is not None and sam.seconds is not None
    assert sam.partner.config["epochs"] == 400
    assert sam.difference.estimate is not None
    assert sam.difference.estimate.mean == -2.0
    assert sam.difference.estimate.half_width == pytest.approx(12.7062, abs=1e-4)
    assert sam.seconds.mean == 4000
    assert sam.missing_epochs is None
    assert {row.partner for row in family.rows[:2]} == {None}
    assert {row.missing_epochs for row in family.rows[:2]} == {None}


@pytest.mark.parametrize(
    ("passes", "has_partner"), [(1.97, True), (2.03, True), (1.95, False), (2.05, False)]
)
def test_passes_within_two_percent_are_equal(tmp_path: Path, passes: float, has_partner: bool) -> None:
    _write(tmp_path, "sgd", 400, [4.0])
    _write(tmp_path, "sam", 200, [3.0], passes=passes)
    (family,) = _families(tmp_path)
    assert (_row(family, "SAM rho=0.05", 200).partner is not None) == has_partner


def test_nearest_of_two_partners_is_taken(tmp_path: Path) -> None:
    _write(tmp_path, "sgd", 395, [4.0])
    _write(tmp_path, "sgd", 401, [5.0])
    _write(tmp_path, "sam", 200, [3.0], passes=2)
    (family,) = _families(tmp_path)
    partner = _row(family, "SAM rho=0.05", 200).partner
    assert partner is not None and partner.config["epochs"] == 401


def test_missing_partner_is_named_by_its_epochs(tmp_path: Path) -> None:
    _write(tmp_path, "sgd", 200, [4.0])
    _write(tmp_path, "sam", 200, [3.0], passes=2)
    _write(tmp_path, "sam", 200, [3.5], passes=1.2, optimizer__interval=5)
    (family,) = _families(tmp_path)
    assert _row(family, "SAM rho=0.05", 200).missing_epochs == 400
    assert _row(family, "SAM rho=0.05 interval 5", 200).missing_epochs == 240


def test_passes_count_every_repeat_of_the_dataset(tmp_path: Path) -> None:
    _write(tmp_path, "sgd", 10, [4.0], dataset__repeats=5)
    _write(tmp_path, "sam", 10, [3.0], passes=2, dataset__repeats=5)
    (family,) = _families(tmp_path)
    assert [row.passes_per_image for row in family.rows] == [50, 100]
    assert family.rows[1].missing_epochs == 20


def test_ambiguous_sgd_is_not_a_partner(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_run(
            tmp_path / folder,
            {"identity": folder * 8, "steps": 400, "forward_backward_passes": 400},
            epochs=400,
        )
    _write(tmp_path, "sam", 200, [3.0], passes=2)
    (family,) = _families(tmp_path)
    assert family.rows[-1].partner is None


def test_families_differ_in_more_than_epochs_and_method(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        _write(tmp_path, "sgd", 400, [4.0], optimizer__lr=lr)
        _write(tmp_path, "sam", 200, [3.0], passes=2, optimizer__lr=lr)
    assert [family.title.rpartition(", ")[2] for family in _families(tmp_path)] == [
        "optimizer.lr=0.1",
        "optimizer.lr=0.2",
    ]


def test_nothing_is_shown_where_nothing_can_be_compared(tmp_path: Path) -> None:
    # SGD without SAM, SAM without SGD, and SAM with as few passes as SGD.
    _write(tmp_path / "1", "sgd", 200, [4.0])
    _write(tmp_path / "1", "sgd", 400, [4.0])
    _write(tmp_path / "1", "sam", 200, [3.0], passes=2, dataset__name="cifar100")
    _write(tmp_path / "1", "sgd", 200, [3.0], dataset__name="svhn")
    _write(tmp_path / "1", "sam", 200, [3.0], passes=1, dataset__name="svhn")
    assert _families(tmp_path) == []


def test_validation_errors_are_shown_with_a_partner_only(tmp_path: Path) -> None:
    _write(tmp_path, "sgd", 200, [4.0], dataset__validation="last")
    _write(tmp_path, "sam", 200, [3.0], passes=2, dataset__validation="last")
    assert _families(tmp_path) == []
    _write(tmp_path, "sgd", 400, [4.0], dataset__validation="last")
    assert [family.split for family in _families(tmp_path)] == ["validation"]


def test_runs_that_did_not_count_passes_are_passed_over(tmp_path: Path) -> None:
    write_run(tmp_path, {"forward_backward_passes": None})
    write_run(tmp_path, {"forward_backward_passes": None}, optimizer__name="sam")
    write_run(tmp_path, {"steps": 0, "forward_backward_passes": 0}, epochs=0)
    assert _families(tmp_path) == []
