"""Tests of sam/figures/surface.py."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.contour import ContourSet
from mpl_toolkits.mplot3d import Axes3D

from sam.figures.surface import draw_landscape, fig1_surfaces
from tests.figures.drawn import caption_of, groups_of
from tests.record.analysis_files import write_analysis, write_surface
from tests.record.run_directories import write_run


@pytest.fixture
def surfaces(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, ...]]:
    """Return the coordinates of all surfaces that are drawn."""
    drawn = []
    plot_surface = Axes3D.plot_surface

    def record(axis, *coordinates, **style):
        drawn.append(coordinates)
        return plot_surface(axis, *coordinates, **style)

    monkeypatch.setattr(Axes3D, "plot_surface", record)
    return drawn


def _levels(axis) -> np.ndarray:
    return next(found for found in axis.collections if isinstance(found, ContourSet)).levels


def test_draw_landscape_shows_contours_and_surface_of_one_scale(tmp_path: Path, surfaces) -> None:
    figure = draw_landscape(write_surface(write_run(tmp_path), 4.0))
    contours, _, surface = figure.axes
    figure.draw_without_rendering()
    loss = 0.1 + 4 * (np.linspace(-1, 1, 9)[:, None] ** 2 + 0.5 * np.linspace(-1, 1, 7) ** 2)
    top = 2 * np.median(loss)
    assert surface.name == "3d"
    assert surface.get_zlim() == pytest.approx((0.1, top))
    assert (_levels(contours).min(), _levels(contours).max()) == pytest.approx((0.1, top))
    ((x, y, heights),) = surfaces
    assert (np.nanmin(heights), np.nanmax(heights)) == pytest.approx((0.1, top))
    # Between the points of the analysis the surface is flat, never below the bowl.
    bowl = 0.1 + 4 * (x**2 + 0.5 * y**2)
    shown = heights < top - 1e-9
    assert (heights[shown] >= bowl[shown] - 1e-9).all()
    np.testing.assert_allclose(heights[shown], bowl[shown], atol=4 * (1 / 8**2 + 0.5 / 6**2) + 1e-9)
    assert np.isnan(heights[0, 0])
    assert f"above {top:.3g} are cut off" in caption_of(figure)


def test_draw_landscape_puts_the_first_direction_across(tmp_path: Path) -> None:
    steps_1, steps_2 = np.linspace(-1, 1, 5), np.linspace(-1, 1, 3)
    loss = 1.0 + steps_1[:, None] + 0.2 * steps_2
    arrays = {"steps_1": steps_1, "steps_2": steps_2, "loss": loss, "error_pct": loss}
    figure = draw_landscape(write_analysis(write_run(tmp_path), "landscape", {}, arrays=arrays))
    lines = figure.axes[0].collections[1]
    for level, paths in zip(lines.levels, lines.get_paths(), strict=True):
        np.testing.assert_allclose(paths.vertices @ [1, 0.2], level - 1, atol=1e-9)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_draw_landscape_says_how_many_points_are_not_finite(tmp_path: Path, dimensions: int) -> None:
    steps = np.linspace(-1, 1, 5)
    loss = np.where(steps < 0, np.inf, 1.0 + steps)
    arrays = {"steps_1": steps, "loss": loss, "error_pct": np.full(5, 90.0)}
    if dimensions == 2:
        loss = np.stack([loss] * 3, axis=1)
        arrays |= {"steps_2": np.linspace(-1, 1, 3), "loss": loss, "error_pct": np.full((5, 3), 90.0)}
    result = {"loss_at_centre": 1.0, "points": loss.size, "not_finite": int(np.isinf(loss).sum())}
    settings = {"dimensions": dimensions}
    run = write_run(tmp_path)
    figure = draw_landscape(write_analysis(run, "landscape", result, arrays=arrays, settings=settings))
    assert f"Not drawn because not finite: {result['not_finite']} values." in caption_of(figure)
    assert figure.axes[0].get_yscale() == "linear", "an infinite loss does not stretch the axis"
    figure.draw_without_rendering()


def test_draw_landscape_leaves_unfinished_points_blank(tmp_path: Path, surfaces) -> None:
    figure = draw_landscape(write_surface(write_run(tmp_path), 4.0, holes=21))
    contours = figure.axes[0]
    figure.draw_without_rendering()
    ends = [path.vertices[:, 0].max() for path in contours.collections[0].get_paths() if len(path.vertices)]
    # The last three of nine rows of the first direction are missing.
    assert max(ends) == pytest.approx(0.25)
    ((x, _, heights),) = surfaces
    assert not np.isfinite(heights[x > 0.25]).any()
    assert np.isfinite(heights[(x < 0.25) & (x > -0.5)]).all()


def test_draw_landscape_without_a_finite_point_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no point of the landscape is finite"):
        draw_landscape(write_surface(write_run(tmp_path), np.nan))


def test_draw_landscape_of_another_shape_says_so(tmp_path: Path) -> None:
    arrays = {"steps_1": [0, 1], "steps_2": [0, 1], "loss": [1, 2, 3]}
    analysis = write_analysis(write_run(tmp_path), "landscape", {}, arrays=arrays)
    with pytest.raises(ValueError, match=r"loss is \(3,\), not \(2, 2\)"):
        draw_landscape(analysis)


@pytest.mark.parametrize(("highest", "scale"), [(2.0, "linear"), (2000.0, "log")])
def test_draw_landscape_of_one_dimension_shows_loss_and_error(
    tmp_path: Path, highest: float, scale: str
) -> None:
    steps = [-0.5, 0.0, 1.0, 1.5]
    arrays = {"steps_1": steps, "loss": [0.5, 0.1, np.nan, highest], "error_pct": [5.0, 1.0, np.nan, 20.0]}
    asked = {"dimensions": 1, "directions": "run"}
    figure = draw_landscape(
        write_analysis(write_run(tmp_path), "landscape", {}, arrays=arrays, settings=asked)
    )
    loss, error = figure.axes
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), steps)
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), arrays["loss"])
    np.testing.assert_array_equal(error.lines[0].get_ydata(), arrays["error_pct"])
    # Both trained networks are marked.
    assert [line.get_xdata()[0] for line in loss.lines[1:]] == [0, 1]
    assert loss.get_yscale() == scale
    assert loss.get_xlabel() == "Step towards the other run"
    figure.draw_without_rendering()


def test_fig1_has_surface_and_contours_of_each_condition_on_one_scale(tmp_path: Path, surfaces) -> None:
    for name, height in (("sgd", 20.0), ("sam", 2.0)):
        for seed in (0, 1):
            directory = write_run(tmp_path, optimizer__name=name, seed=seed)
            write_surface(directory, height * (1 + seed), 200)
            write_surface(directory, 500.0, 1)
    figure = fig1_surfaces(groups_of(tmp_path))
    figure.draw_without_rendering()
    spaces = [axis for axis in figure.axes if axis.name == "3d"]
    contours = [axis for axis in figure.axes if axis.get_xlabel() == "Step along direction 1"]
    assert [axis.get_title() for axis in spaces] == ["SGD, epoch 200", "SAM rho=0.05, epoch 200"]
    assert len({axis.get_zlim() for axis in spaces}) == 1
    assert len({tuple(_levels(axis)) for axis in contours}) == 1
    top = spaces[0].get_zlim()[1]
    # The sharp bowl is cut; the flat one is complete: 0.1 + 2 * 1.5 at its corner.
    assert [np.nanmax(heights) for _, _, heights in surfaces] == pytest.approx([top, 3.1])


def test_fig1_without_planes_says_how_to_make_them(tmp_path: Path) -> None:
    write_surface(write_run(tmp_path), 1.0, settings={"dimensions": 1})
    with pytest.raises(ValueError, match="analysis=landscape analysis.dimensions=2"):
        fig1_surfaces(groups_of(tmp_path))


def test_draw_landscape_shows_the_path_of_a_run_in_its_own_coordinates(tmp_path: Path) -> None:
    path = [[-3.0, -0.2], [-1.0, 0.4], [0.0, 0.0]]
    steps_1, steps_2 = np.linspace(-4, 1, 5), np.linspace(-0.5, 0.7, 5)
    loss = steps_1[:, None] ** 2 + steps_2**2
    arrays = {"steps_1": steps_1, "steps_2": steps_2, "loss": loss, "error_pct": loss, "path": path}
    run = write_run(tmp_path)
    settings = {"directions": "trajectory"}
    figure = draw_landscape(write_analysis(run, "landscape", {}, arrays=arrays, settings=settings))
    contours = figure.axes[0]
    for line in contours.lines[:2]:
        np.testing.assert_allclose(line.get_xydata(), path)
    assert contours.get_aspect() == "auto"
    assert contours.get_xlabel() == "Step along component 1"
    assert "the run's path (white)" in caption_of(figure)

    arrays = {"steps_1": steps_1, "loss": loss[:, 0], "error_pct": loss[:, 0], "path": [[-3.0], [0.0]]}
    settings |= {"dimensions": 1}
    figure = draw_landscape(write_analysis(run, "landscape", {}, 100, arrays, settings))
    marked = next(line for line in figure.axes[0].lines if line.get_label() == "kept weights, projected")
    np.testing.assert_allclose(marked.get_xdata(), [-3, 0])
    broken = write_analysis(run, "landscape", {}, 50, {**arrays, "path": [1.0, 2.0]}, settings)
    with pytest.raises(ValueError, match="the path has shape"):
        draw_landscape(broken)
