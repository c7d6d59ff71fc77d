"""Tests of sam/figures/epochs.py."""

import pytest
from matplotlib.figure import Figure

from sam.figures.epochs import curve_of, draw_curve, use_whole_epochs


def test_curve_is_the_mean_and_range_over_seeds() -> None:
    assert curve_of({3: [5.0], 1: [4.0, 8.0]}) == ([1, 3], [6.0, 5.0], [4.0, 5.0], [8.0, 5.0])


def test_curve_has_a_band_where_seeds_differ_and_marks_where_epochs_are_few() -> None:
    axis = Figure().subplots()
    draw_curve(axis, curve_of({1: [4.0, 8.0]}), "black", "few")
    draw_curve(axis, curve_of({epoch: [4.0] for epoch in range(20)}), "black", "many")
    assert len(axis.collections) == 1
    assert [line.get_marker() for line in axis.lines] == ["o", ""]


@pytest.mark.parametrize(
    ("epochs", "all_have_ticks"),
    [(range(2, 21, 2), True), ([7], True), (range(1, 21), False), ([1, 2, 3, 200], False)],
)
def test_ticks_are_at_epochs_that_are_few_and_apart(epochs: list[int], all_have_ticks: bool) -> None:
    axis = Figure().subplots()
    axis.plot(epochs, [0] * len(epochs))
    use_whole_epochs(axis, epochs)
    ticks = list(axis.get_xticks())
    assert (ticks == list(epochs)) == all_have_ticks
    assert all(tick == int(tick) for tick in ticks)
