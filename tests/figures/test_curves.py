"""Tests of sam/figures/curves.py."""

from pathlib import Path

import pytest

from sam.figures.curves import draw_error_curves, error_curve
from sam.figures.style import SAM_COLOUR, SGD_COLOUR
from tests.figures.drawn import caption_of, groups_of
from tests.record.run_directories import falling_errors, write_run


def test_error_curve_is_the_mean_and_range_over_seeds(tmp_path: Path) -> None:
    for seed, error in ((0, 4.0), (1, 8.0)):
        write_run(tmp_path, metrics=[{"epoch": 1, "test_error_pct": error}], seed=seed)
    (group,) = groups_of(tmp_path)
    assert error_curve(group, "test_error_pct") == ([1], [6.0], [4.0], [8.0])


def test_error_curve_averages_over_the_seeds_that_have_an_epoch(tmp_path: Path) -> None:
    rows = [{"epoch": epoch, "test_error_pct": 10.0 * epoch} for epoch in (1, 2, 3)]
    write_run(tmp_path, metrics=rows[:2], seed=0)
    write_run(tmp_path, metrics=[{**rows[0], "test_error_pct": 20.0}, rows[2]], seed=1)
    (group,) = groups_of(tmp_path)
    assert error_curve(group, "test_error_pct") == (
        [1, 2, 3],
        [15.0, 20.0, 30.0],
        [10.0, 20.0, 30.0],
        [20.0, 20.0, 30.0],
    )


def test_error_curve_passes_over_missing_and_infinite_values(tmp_path: Path) -> None:
    directory = write_run(tmp_path)
    (directory / "metrics.csv").write_text("epoch,test_error_pct\n1,\n2,nan\n3,5\n")
    (group,) = groups_of(tmp_path)
    assert error_curve(group, "test_error_pct").epochs == [3]
    assert error_curve(group, "train_error_pct").epochs == []


@pytest.mark.parametrize("num_epochs", [1, 3, 40])
def test_draw_error_curves_draws_test_and_train_error_of_each_condition(
    tmp_path: Path, num_epochs: int
) -> None:
    for seed in (0, 1):
        metrics = falling_errors(num_epochs, 3.0 + seed)
        write_run(tmp_path, {"test_error_pct": 3.0 + seed}, metrics, seed=seed)
        write_run(tmp_path, metrics=metrics, seed=seed, optimizer__name="sam")
    groups = groups_of(tmp_path)
    (axis,) = draw_error_curves(groups).axes
    assert [(line.get_color(), line.get_linestyle()) for line in axis.lines] == [
        (SGD_COLOUR, "-"),
        (SGD_COLOUR, "--"),
        (SAM_COLOUR, "-"),
        (SAM_COLOUR, "--"),
    ]
    for line, group in zip(axis.lines[::2], groups):
        assert list(line.get_ydata()) == error_curve(group, "test_error_pct").mean
    # A line with one point is visible only with a mark.
    assert (axis.lines[0].get_marker() == "o") == (num_epochs <= 10)
    assert axis.get_legend().get_texts()[0].get_text() == "SGD: 3.50 ± 6.35 (n = 2)"


def test_draw_error_curves_may_leave_out_the_first_tenth_but_nothing_else(tmp_path: Path) -> None:
    metrics = [{"epoch": epoch, "test_error_pct": 90.0 if epoch == 1 else 50.0} for epoch in range(1, 21)]
    write_run(tmp_path, metrics=metrics)
    (axis,) = draw_error_curves(groups_of(tmp_path)).axes
    assert axis.get_ylim() == (0, pytest.approx(52.5))


def test_draw_error_curves_draws_at_most_six_settings_and_says_so(tmp_path: Path) -> None:
    for epochs in range(1, 9):
        write_run(tmp_path, metrics=falling_errors(3, 3.0), epochs=epochs)
    figure = draw_error_curves(groups_of(tmp_path))
    assert len([axis for axis in figure.axes if axis.lines]) == 6
    assert "Not drawn for lack of space: 2 more" in caption_of(figure)


def test_draw_error_curves_leaves_a_spare_panel_blank(tmp_path: Path) -> None:
    for epochs in (1, 2, 3):
        write_run(tmp_path, metrics=falling_errors(3, 3.0), epochs=epochs)
    *shown, spare = draw_error_curves(groups_of(tmp_path)).axes
    assert len(shown) == 3
    assert not spare.axison


def test_draw_error_curves_counts_diverged_runs(tmp_path: Path) -> None:
    write_run(tmp_path, metrics=falling_errors(3, 3.0))
    write_run(tmp_path, {"status": "diverged"}, seed=1)
    assert "runs that diverged (1)" in caption_of(draw_error_curves(groups_of(tmp_path)))


def test_draw_error_curves_without_metrics_says_what_is_missing(tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(ValueError, match=r"no complete run has epochs in its metrics\.csv"):
        draw_error_curves(groups_of(tmp_path))


def test_draw_error_curves_takes_epoch_and_error_of_zero(tmp_path: Path) -> None:
    write_run(tmp_path, metrics=[{"epoch": 0, "test_error_pct": 0.0}])
    (axis,) = draw_error_curves(groups_of(tmp_path)).axes
    assert axis.get_ylim() == (0, 1)


@pytest.mark.parametrize(("validation", "split"), [("none", "test"), ("last", "validation")])
def test_draw_error_curves_names_the_split(tmp_path: Path, validation: str, split: str) -> None:
    write_run(tmp_path, metrics=falling_errors(3, 3.0), dataset__validation=validation)
    (axis,) = draw_error_curves(groups_of(tmp_path)).axes
    assert axis.get_ylabel() == f"{split.capitalize()} (solid) and train (dashed) error (%)"
    assert axis.get_legend().get_title().get_text() == f"Final {split} error (%)"
