"""Tests of sam/report/figures.py."""

from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from sam.report.figures import SAM_COLOUR, SGD_COLOUR, colours_of, draw_error_curves, error_curve
from sam.report.groups import Group, group_runs
from sam.report.runs import find_runs
from tests.report.run_directories import falling_errors, write_run


def _groups(root: Path) -> list[Group]:
    return group_runs(find_runs([root])[0])[0]


def test_error_curve_is_the_mean_and_range_over_seeds(tmp_path: Path) -> None:
    for seed, error in ((0, 4.0), (1, 8.0)):
        write_run(tmp_path, metrics=[{"epoch": 1, "test_error_pct": error}], seed=seed)
    (group,) = _groups(tmp_path)
    assert error_curve(group, "test_error_pct") == ([1], [6.0], [4.0], [8.0])


def test_error_curve_averages_over_the_seeds_that_have_an_epoch(tmp_path: Path) -> None:
    rows = [{"epoch": epoch, "test_error_pct": 10.0 * epoch} for epoch in (1, 2, 3)]
    write_run(tmp_path, metrics=rows[:2], seed=0)
    write_run(tmp_path, metrics=[{**rows[0], "test_error_pct": 20.0}, rows[2]], seed=1)
    (group,) = _groups(tmp_path)
    assert error_curve(group, "test_error_pct") == (
        [1, 2, 3],
        [15.0, 20.0, 30.0],
        [10.0, 20.0, 30.0],
        [20.0, 20.0, 30.0],
    )


def test_error_curve_passes_over_missing_and_infinite_values(tmp_path: Path) -> None:
    directory = write_run(tmp_path)
    (directory / "metrics.csv").write_text("epoch,test_error_pct\n1,\n2,nan\n3,5\n")
    (group,) = _groups(tmp_path)
    assert error_curve(group, "test_error_pct").epochs == [3]
    assert error_curve(group, "train_error_pct").epochs == []


def test_colours_are_two_for_sgd_and_one_sam(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path, optimizer__name="sam")
    assert colours_of(_groups(tmp_path)) == [SGD_COLOUR, SAM_COLOUR]


def test_colours_darken_with_rho(tmp_path: Path) -> None:
    write_run(tmp_path)
    for rho in (0.01, 0.05, 0.1, 0.5):
        write_run(tmp_path, optimizer__name="sam", optimizer__rho=rho)
    colours = colours_of(_groups(tmp_path))
    brightness = [sum(to_rgb(colour)) for colour in colours[1:]]
    assert colours[0] == SGD_COLOUR
    assert brightness == sorted(brightness, reverse=True)
    assert len(set(colours)) == 5


@pytest.mark.parametrize("num_epochs", [1, 3, 40])
def test_draw_error_curves_writes_a_png(tmp_path: Path, num_epochs: int) -> None:
    for seed in (0, 1):
        metrics = falling_errors(num_epochs, 3.0 + seed)
        write_run(tmp_path, metrics=metrics, seed=seed)
        write_run(tmp_path, metrics=metrics, seed=seed, optimizer__name="sam")
    path = tmp_path / "curves.png"
    assert draw_error_curves(_groups(tmp_path), path) == 1
    height, width = imread(path).shape[:2]
    assert (width, height) == (700, 520)


def test_draw_error_curves_draws_at_most_six_panels(tmp_path: Path) -> None:
    for epochs in range(1, 9):
        write_run(tmp_path, metrics=falling_errors(3, 3.0), epochs=epochs)
    assert draw_error_curves(_groups(tmp_path), tmp_path / "curves.png") == 6


def test_draw_error_curves_leaves_a_spare_panel_blank(tmp_path: Path) -> None:
    for epochs in (1, 2, 3):
        write_run(tmp_path, metrics=falling_errors(3, 3.0), epochs=epochs)
    path = tmp_path / "curves.png"
    assert draw_error_curves(_groups(tmp_path), path) == 3
    image = imread(path)
    height, width = image.shape[:2]
    spare = image[height // 2 + 40 : height - 100, width // 2 + 40 :, :3]
    assert spare.min() == 1.0


def test_draw_error_curves_without_metrics_writes_nothing(tmp_path: Path) -> None:
    write_run(tmp_path)
    path = tmp_path / "curves.png"
    assert draw_error_curves(_groups(tmp_path), path) == 0
    assert not path.exists()


def test_draw_error_curves_takes_epoch_and_error_of_zero(tmp_path: Path) -> None:
    write_run(tmp_path, metrics=[{"epoch": 0, "test_error_pct": 0.0}])
    assert draw_error_curves(_groups(tmp_path), tmp_path / "curves.png") == 1


@pytest.mark.parametrize(("validation", "split"), [("none", "test"), ("last", "validation")])
def test_draw_error_curves_names_the_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validation: str, split: str
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    write_run(tmp_path, metrics=falling_errors(3, 3.0), dataset__validation=validation)
    draw_error_curves(_groups(tmp_path), tmp_path / "curves.png")
    (axis,) = drawn[0].axes
    assert axis.get_ylabel() == f"{split.capitalize()} (solid) and train (dashed) error (%)"
    assert axis.get_legend().get_title().get_text() == f"Final {split} error (%)"
