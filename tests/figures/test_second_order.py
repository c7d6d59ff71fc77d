"""Tests of sam/figures/second_order.py."""

from pathlib import Path

import numpy as np
import pytest

from sam.figures.second_order import draw_second_order, fig5
from sam.system.files import finite_only
from tests.figures.drawn import caption_of, groups_of
from tests.record.analysis_files import write_analysis
from tests.record.run_directories import write_run


def test_draw_second_order_has_a_dot_for_each_batch_and_the_mean(tmp_path: Path) -> None:
    result = {"cosines": [0.9, 0.8, 1.0], "mean": 0.9, "standard_deviation": 0.1}
    directory = write_run(tmp_path)
    figure = draw_second_order(write_analysis(directory, "second_order", result))
    dots, mean = figure.axes[0].lines
    assert list(dots.get_ydata()) == [0.9, 0.8, 1.0]
    assert list(mean.get_ydata()) == [0.9, 0.9]
    assert f"{directory.name}, epoch 200" in figure.get_suptitle()
    figure.draw_without_rendering()


def test_cosines_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    result = {"cosines": [0.9, float("nan"), 0.7], "mean": 0.8, "not_finite": 1}
    analysis = write_analysis(write_run(tmp_path), "second_order", finite_only(result))
    assert analysis.summary == "cosine 0.8000, 0.7000 to 0.9000 over 2 batches; not finite in 1 more"
    figure = draw_second_order(analysis)
    assert list(figure.axes[0].lines[0].get_ydata()) == [0.9, 0.7]
    assert "Not drawn because not finite: 1 value." in caption_of(figure)


def test_fig5_has_a_line_for_each_trajectory(tmp_path: Path) -> None:
    for second_order in (False, True):
        for seed in (0, 1):
            directory = write_run(
                tmp_path, optimizer__name="sam", optimizer__second_order=second_order, seed=seed
            )
            for epoch in (1, 200):
                mean = 1 - (0.1 if second_order else 0.05) * seed * epoch / 200
                result = {"cosines": [mean], "mean": mean}
                write_analysis(directory, "second_order", result, epoch)
    figure = fig5(groups_of(tmp_path))
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == [
        "trained with SAM rho=0.05",
        "trained with SAM rho=0.05 second order",
    ]
    assert len({line.get_color() for line in axis.lines}) == 2
    assert len({line.get_linestyle() for line in axis.lines}) == 2
    for line, band, fall in zip(axis.lines, axis.collections, (0.05, 0.1), strict=True):
        assert list(line.get_xdata()) == [1, 200]
        np.testing.assert_allclose(line.get_ydata(), [1 - fall / 400, 1 - fall / 2])
        heights = band.get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose([heights.min(), heights.max()], [1 - fall, 1])
    assert (axis.get_xlabel(), list(axis.get_xticks())) == ("Epoch", [1, 200])
    figure.draw_without_rendering()


def test_fig5_without_cosines_says_how_to_make_them(tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(ValueError, match="analysis=second_order"):
        fig5(groups_of(tmp_path))
