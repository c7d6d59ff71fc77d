"""Tests of sam/figures/error_panels.py."""

from pathlib import Path

import pytest
from matplotlib.colors import to_rgb

from sam.figures.error_panels import (
    add_caption,
    colours_of,
    draw_line,
    make_panels,
    num_seeds_text,
    panels_of,
    use_log_axis,
)
from sam.figures.style import SAM_COLOUR, SGD_COLOUR
from sam.report.families import sgd_of
from sam.report.interval import Estimate
from tests.figures.drawn import caption_of, groups_of, lines_of
from tests.record.run_directories import write_run


def test_panels_differ_in_what_is_not_free(tmp_path: Path) -> None:
    for m in (16, 32):
        for epochs in (100, 200):
            write_run(tmp_path, m=m, epochs=epochs)
    write_run(tmp_path, {"status": "diverged"}, m=64)
    by_epochs = panels_of(groups_of(tmp_path), ["m"])
    assert [[group.config["m"] for group in panel.groups] for panel in by_epochs] == [[16, 32], [16, 32]]
    assert len({panel.title for panel in by_epochs}) == 2
    assert len(panels_of(groups_of(tmp_path))) == 4


def test_colours_are_two_for_sgd_and_one_sam(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path, optimizer__name="sam")
    assert colours_of(groups_of(tmp_path)) == [SGD_COLOUR, SAM_COLOUR]


def test_colours_darken_with_rho(tmp_path: Path) -> None:
    write_run(tmp_path)
    for rho in (0.01, 0.05, 0.1, 0.5):
        write_run(tmp_path, optimizer__name="sam", optimizer__rho=rho)
    colours = colours_of(groups_of(tmp_path))
    brightness = [sum(to_rgb(colour)) for colour in colours[1:]]
    assert colours[0] == SGD_COLOUR
    assert brightness == sorted(brightness, reverse=True)
    assert len(set(colours)) == 5


def test_sgd_of_several_is_none(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert sgd_of(groups_of(tmp_path)) == groups_of(tmp_path)[0]
    write_run(tmp_path, optimizer__lr=0.2)
    groups = groups_of(tmp_path)
    assert len(groups) == 2
    assert sgd_of(groups) is None


def test_num_seeds_text_of_unequal_conditions_is_a_range(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, seed=seed)
    assert num_seeds_text(groups_of(tmp_path)) == "n = 2"
    write_run(tmp_path, optimizer__name="sam")
    assert num_seeds_text(groups_of(tmp_path)) == "n = 1 to 2"


def test_draw_line_goes_from_left_to_right_with_bars_where_there_are_intervals() -> None:
    _, (axis,) = make_panels(1)
    draw_line(axis, [(2.0, Estimate(5.0, None, 1)), (1.0, Estimate(4.0, 0.5, 3))], "#000000", "SAM")
    assert lines_of(axis) == {"SAM": [(1.0, 4.0, 0.5), (2.0, 5.0, None)]}


def test_caption_breaks_no_line_before_a_sign() -> None:
    for length in range(60, 100):
        figure, _ = make_panels(1)
        add_caption(figure, ["-" * length, "95 % and n = 3."])
        lines = figure.get_supxlabel().split("\n")
        assert not any(line.startswith(("%", "=", "3")) for line in lines)
        assert caption_of(figure).endswith(" 95 % and n = 3.")


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([0.1, 0.05, 0.2, 0.1], [0.05, 0.1, 0.2]), ([0.1, 0.1001, 100], None), ([3], [3])],
)
def test_log_axis_has_ticks_at_values_that_have_room(values: list[float], ticks: list[float] | None) -> None:
    figure, (axis,) = make_panels(1)
    axis.plot(values, values)
    use_log_axis(axis, values)
    drawn = [tick for tick in axis.get_xticks() if min(values) <= tick <= max(values)]
    assert drawn == pytest.approx(ticks or [0.1, 1, 10, 100])
    figure.canvas.draw()
    assert f"{drawn[0]:g}" in [label.get_text() for label in axis.get_xticklabels()]
