"""Tests of sam/figures/update_orders.py."""

from pathlib import Path

import pytest

from sam.figures.update_orders import draw_update_orders
from tests.figures.drawn import caption_of, groups_of
from tests.record.run_directories import write_run


def write_order(root: Path, second_order: bool, **changes: object) -> None:
    """Write a run whose errors depend on its order."""
    metrics = [
        {"epoch": epoch, "perturbed_error_pct": 10.0 + second_order, "test_error_pct": 20.0 + second_order}
        for epoch in (1, 2)
    ]
    order = {"optimizer__name": "sam", "optimizer__second_order": second_order}
    write_run(root, metrics=metrics, **order, **changes)


def test_update_orders_draws_both_orders_in_both_panels(tmp_path: Path) -> None:
    for second_order in (True, False):
        for seed in (0, 1):
            write_order(tmp_path, second_order, seed=seed)
    figure = draw_update_orders(groups_of(tmp_path))
    left, right = figure.axes
    for axis, error in ((left, 10.0), (right, 20.0)):
        drawn = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
        assert drawn == {"first order": [error, error], "second order": [error + 1, error + 1]}
    assert (left.get_ylabel(), right.get_ylabel()) == ("Train error at w + eps (%)", "Test error at w (%)")
    assert "mean over seeds (n = 2)" in caption_of(figure)


def test_update_orders_pairs_equal_rhos_only(tmp_path: Path) -> None:
    write_order(tmp_path, False, optimizer__rho=0.05)
    write_order(tmp_path, True, optimizer__rho=0.1)
    with pytest.raises(
        ValueError,
        match=r"with both optimizer\.second_order=false and optimizer\.second_order=true for the same rho",
    ):
        draw_update_orders(groups_of(tmp_path))
    write_order(tmp_path, False, optimizer__rho=0.1)
    assert [axis.get_title()[:8] for axis in draw_update_orders(groups_of(tmp_path)).axes] == ["rho 0.1:"] * 2


def test_update_orders_draws_at_most_three_pairs(tmp_path: Path) -> None:
    for rho in (0.01, 0.02, 0.05, 0.1):
        for second_order in (True, False):
            write_order(tmp_path, second_order, optimizer__rho=rho)
    figure = draw_update_orders(groups_of(tmp_path))
    assert len(figure.axes) == 6
    assert "lack of space: 1 more" in caption_of(figure)
