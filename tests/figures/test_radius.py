"""Tests of sam/figures/radius.py."""

from pathlib import Path

import pytest

from sam.figures.radius import SHIFT, draw_balls, draw_rho, draw_rho_by_m
from sam.figures.style import SGD_COLOUR
from sam.report.interval import estimate
from tests.figures.drawn import caption_of, groups_of, lines_of
from tests.record.run_directories import write_run


def write_seeds(root: Path, errors: list[float], **changes: object) -> None:
    """Write one run per error, with the seeds 0, 1, ..."""
    for seed, error in enumerate(errors):
        write_run(root, {"test_error_pct": error}, seed=seed, **changes)


def test_rho_by_m_draws_a_line_for_each_m_that_starts_at_sgd(tmp_path: Path) -> None:
    for m in (4, 64, None):
        write_seeds(tmp_path, [9.0, 10.0], m=m)
        write_seeds(tmp_path, [7.0, 7.5], m=m, optimizer__name="sam", optimizer__rho=0.1)
    write_run(tmp_path, m=4, optimizer__name="sam", optimizer__rho=0.2, result={"test_error_pct": 8.0})
    write_seeds(tmp_path, [5.0], m=16)  # SGD without SAM makes no line
    (axis,) = (figure := draw_rho_by_m(groups_of(tmp_path))).axes
    lines = lines_of(axis)
    assert list(lines) == ["4", "64", "whole batch"]
    apart = SHIFT * 0.2
    sgd, sam = estimate([9.0, 10.0]), estimate([7.0, 7.5])
    assert sgd is not None and sam is not None
    assert lines["64"] == [
        (0.0, 9.5, pytest.approx(sgd.half_width)),
        (0.1, 7.25, pytest.approx(sam.half_width)),
    ]
    assert [x for x, _, _ in lines["4"]] == pytest.approx([-apart, 0.1 - apart, 0.2 - apart])
    assert [x for x, _, _ in lines["whole batch"]] == pytest.approx([apart, 0.1 + apart])
    assert lines["4"][-1][1:] == (8.0, None)
    assert "n = 1 to 2" in caption_of(figure)
    assert "95 % Student-t interval" in caption_of(figure)


def test_rho_draws_a_line_for_each_method_and_sgd_as_a_band(tmp_path: Path) -> None:
    write_seeds(tmp_path, [9.0, 10.0])
    for rho in (0.05, 0.1):
        write_seeds(tmp_path, [70 * rho, 80 * rho], optimizer__name="sam", optimizer__rho=rho)
        write_seeds(tmp_path, [5.0], optimizer__name="sam", optimizer__rho=10 * rho, optimizer__adaptive=True)
    write_seeds(tmp_path, [8.0], optimizer__name="sam", optimizer__rho=0.0)  # cannot be on a log axis
    (axis,) = draw_rho(groups_of(tmp_path)).axes
    lines = lines_of(axis)
    assert {label: [point[:2] for point in points] for label, points in lines.items()} == {
        "SAM": [(0.05, pytest.approx(3.75)), (0.1, pytest.approx(7.5))],
        "adaptive SAM": [(0.5, 5.0), (1.0, 5.0)],
    }
    (level,) = [line for line in axis.lines if line.get_linestyle() == "--"]
    assert (level.get_color(), level.get_ydata()[0], level.get_label()) == (SGD_COLOUR, 9.5, "SGD (n = 2)")
    band = axis.patches[0].get_extents().transformed(axis.transData.inverted())
    sgd = estimate([9.0, 10.0])
    assert sgd is not None and sgd.half_width is not None
    assert (band.y0, band.y1) == pytest.approx((9.5 - sgd.half_width, 9.5 + sgd.half_width))


def test_rho_draws_a_panel_for_each_setting_and_names_its_split(tmp_path: Path) -> None:
    for validation in ("none", "last"):
        for rho in (0.05, 0.1):
            sweep = {"optimizer__name": "sam", "optimizer__rho": rho, "dataset__validation": validation}
            write_run(tmp_path, **sweep)
    labels = [axis.get_ylabel() for axis in draw_rho(groups_of(tmp_path)).axes]
    assert sorted(labels) == ["Test error (%)", "Validation error (%)"]


def test_balls_names_the_norms_and_passes_over_other_methods(tmp_path: Path) -> None:
    balls = [{}, {"optimizer__p": float("inf")}, {"optimizer__direction": "random"}]
    for ball in [*balls, {"optimizer__adaptive": True}]:
        for rho in (0.01, 0.1):
            write_run(tmp_path, optimizer__name="sam", optimizer__rho=rho, **ball)
    (axis,) = draw_balls(groups_of(tmp_path)).axes
    lines = lines_of(axis)
    assert list(lines) == ["2-norm", "infinity norm", "random direction, 2-norm"]
    assert all([x for x, _, _ in points] == [0.01, 0.1] for points in lines.values())
    assert axis.get_xscale() == "log"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (draw_rho_by_m, "two rhos"),
        (draw_rho, "two rhos of one method"),
        (draw_balls, "two of: optimizer.p=2, optimizer.p=inf, optimizer.direction=random"),
    ],
)
def test_radius_figures_without_a_sweep_say_what_is_missing(tmp_path: Path, draw, message: str) -> None:
    write_run(tmp_path, optimizer__name="sam")
    with pytest.raises(ValueError, match=message):
        draw(groups_of(tmp_path))


def test_rho_by_m_takes_no_pair_of_sgd_and_sam_for_a_sweep(tmp_path: Path) -> None:
    write_seeds(tmp_path, [9.0, 10.0], m=4)
    write_seeds(tmp_path, [7.0, 7.5], m=4, optimizer__name="sam", optimizer__rho=0.1)
    with pytest.raises(ValueError, match="^no setting has complete runs of two rhos above 0$"):
        draw_rho_by_m(groups_of(tmp_path))
