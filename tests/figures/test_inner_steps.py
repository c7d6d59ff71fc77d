"""Tests of sam/figures/inner_steps.py."""

from pathlib import Path

import numpy as np

from sam.figures.inner_steps import fig7
from sam.report.groups import Group
from tests.figures.drawn import groups_of
from tests.record.analysis_files import rise_row, write_analysis
from tests.record.run_directories import write_run


def _write(root: Path, sizes: tuple[int, ...] = (1, 32, 500)) -> list[Group]:
    for name, height in (("sgd", 1.0), ("sam", 0.5)):
        for seed in (0, 1, 2):
            directory = write_run(root, optimizer__name=name, seed=seed)
            for epoch in (1, 200):
                rows = [
                    rise_row(m, height * (epoch + seed) * steps / m, steps) for m in sizes for steps in (1, 5)
                ]
                write_analysis(directory, "sharpness", {"rows": rows}, epoch)
    return groups_of(root)


def test_fig7_has_error_above_loss_for_each_condition(tmp_path: Path) -> None:
    figure = fig7(_write(tmp_path))
    assert len(figure.axes) == 4
    assert [axis.get_title() for axis in figure.axes[:2]] == ["SGD", "SAM rho=0.05"]
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == [
        "Rise of the error (points)",
        "Rise of the loss",
    ]
    for axis, factor in zip(figure.axes, (10, 5, 1, 0.5), strict=True):
        assert len(axis.collections) == 2
        for line, band, steps in zip(axis.lines, axis.collections, (1, 5), strict=True):
            assert list(line.get_xdata()) == [1, 200]
            # For the m of the training, 32; the mean of the seeds is 1.
            unit = factor * steps / 32
            np.testing.assert_allclose(line.get_ydata(), [2 * unit, 201 * unit])
            heights = band.get_paths()[0].vertices[:, 1]
            np.testing.assert_allclose([heights.min(), heights.max()], [unit, 202 * unit])
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["1 ascent step", "5 ascent steps"]
    assert [list(axis.get_xticks()) for axis in figure.axes] == [[1, 200]] * 4
    figure.draw_without_rendering()


def test_lines_differ_in_more_than_colour(tmp_path: Path) -> None:
    lines = fig7(_write(tmp_path)).axes[0].lines
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 2


def test_fig7_takes_the_largest_m_where_that_of_the_training_was_not_measured(tmp_path: Path) -> None:
    loss = fig7(_write(tmp_path, (1, 500))).axes[2]
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [2 / 500, 201 / 500])
