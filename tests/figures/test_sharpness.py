"""Tests of sam/figures/sharpness.py."""

from pathlib import Path

import numpy as np
import pytest

from sam.figures.sharpness import draw_sharpness, sharpness_by_condition
from sam.figures.style import SAM_COLOUR, SGD_COLOUR
from sam.report.interval import estimate
from tests.figures.drawn import caption_of, groups_of
from tests.record.analysis_files import rise_row, write_analysis
from tests.record.run_directories import write_run


def _bars(container) -> np.ndarray:
    """Return the ends of the error bars, float [points, 2]."""
    return np.array([segment[:, 1] for segment in container.lines[2][0].get_segments()])


def test_draw_sharpness_has_a_line_for_each_number_of_steps(tmp_path: Path) -> None:
    rows = [rise_row(m, steps / m, steps) for steps in (5, 1) for m in (64, 1, 500)]
    rows[-1]["loss_rise_standard_error"] = None
    rows[1]["num_subsets"] = rows[4]["num_subsets"] = 4
    figure = draw_sharpness(write_analysis(write_run(tmp_path), "sharpness", {"rows": rows}))
    loss, error = figure.axes
    assert [found.get_label() for found in loss.containers] == ["1 ascent step", "5 ascent steps"]
    for container, line, steps in zip(loss.containers, error.lines, (1, 5), strict=True):
        expected = [steps / m for m in (1, 64, 500)]
        np.testing.assert_allclose(container.lines[0].get_ydata(orig=False), expected)
        np.testing.assert_allclose(line.get_xdata(), [1, 64, 500])
        np.testing.assert_allclose(line.get_ydata(), [10 * rise for rise in expected])
    # t(3 degrees, 97.5 %) = 3.182 standard errors of a tenth of the rise; none for the whole sample.
    np.testing.assert_allclose(_bars(loss.containers[0])[0], [1 - 0.3182, 1 + 0.3182], rtol=1e-4)
    np.testing.assert_allclose(_bars(loss.containers[0])[2], [0.002, 0.002])
    assert loss.get_ylim()[0] == 0
    assert list(loss.get_xticks()) == [1, 64, 500]
    figure.draw_without_rendering()


def test_comparison_has_means_and_t_intervals_over_seeds(tmp_path: Path) -> None:
    rises = {"sgd": [1.0, 1.4, 1.5], "sam": [0.2, 0.3]}
    for name, values in rises.items():
        for seed, value in enumerate(values):
            directory = write_run(tmp_path, optimizer__name=name, seed=seed)
            for epoch, factor in ((1, 7.0), (200, 1.0)):
                rows = [rise_row(m, factor * value / m, steps) for m in (1, 4) for steps in (1, 3)]
                rows = [{**row, "loss_rise": row["loss_rise"] * row["ascent_steps"]} for row in rows]
                write_analysis(directory, "sharpness", {"rows": rows}, epoch)
    figure = sharpness_by_condition(groups_of(tmp_path))
    (axis,) = figure.axes
    assert [found.get_label() for found in axis.containers] == ["SGD", "SAM rho=0.05"]
    assert [found.lines[0].get_color() for found in axis.containers] == [SGD_COLOUR, SAM_COLOUR]
    for container, values in zip(axis.containers, rises.values(), strict=True):
        mean = estimate(values)
        assert mean is not None and mean.half_width is not None
        np.testing.assert_allclose(container.lines[0].get_ydata(orig=False), [mean.mean, mean.mean / 4])
        ends = [mean.mean - mean.half_width, mean.mean + mean.half_width]
        np.testing.assert_allclose(_bars(container)[0], ends)
    # The points are shifted, around m.
    places = [container.lines[0].get_xdata(orig=False) for container in axis.containers]
    np.testing.assert_allclose(places[0] * places[1], [1, 16])
    assert (places[0] < places[1]).all()
    assert "2 to 3" in caption_of(figure)
    assert "After the last analysed epoch, with 1 ascent step." in caption_of(figure)
    figure.draw_without_rendering()


def test_comparison_has_a_panel_for_each_setting(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        for seed in (0, 1):
            directory = write_run(tmp_path, optimizer__lr=lr, seed=seed)
            write_analysis(directory, "sharpness", {"rows": [rise_row(1, lr)]})
    figure = sharpness_by_condition(groups_of(tmp_path))
    titles = [axis.get_title().replace("\n", " ") for axis in figure.axes]
    assert [title[-16:] for title in titles] == ["optimizer.lr=0.1", "optimizer.lr=0.2"]


def test_comparison_counts_the_seeds_that_it_draws(tmp_path: Path) -> None:
    measured = (("sgd", 0, 3), ("sgd", 1, 3), ("sgd", 2, 1), ("sam", 0, 1), ("sam", 1, 3))
    for name, seed, steps in measured:
        directory = write_run(tmp_path, optimizer__name=name, seed=seed)
        write_analysis(directory, "sharpness", {"rows": [rise_row(1, steps, steps)]})
    figure = sharpness_by_condition(groups_of(tmp_path))
    assert [list(found.lines[0].get_ydata()) for found in figure.axes[0].containers] == [[3], [3]]
    assert "3 ascent steps." in caption_of(figure)
    assert "n = 1 to 2" in caption_of(figure)


def test_comparison_without_sharpness_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sharpness analysis in 0 complete runs.*analysis=sharpness"):
        sharpness_by_condition(groups_of(tmp_path))
