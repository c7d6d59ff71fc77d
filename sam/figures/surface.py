"""Pictures of loss landscapes (Foret et al. 2021, Figure 1 right; Li et al. 2018)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import binary_dilation

from sam.figures.analysis_frame import moment, new_figure, not_finite, sample, set_texts, start_at_zero
from sam.figures.style import PANEL_INCHES, SAM_COLOUR, SGD_COLOUR
from sam.record.analyses import Analysis, Array, read_arrays
from sam.report.groups import Group
from sam.report.measured import gather, largest_comparison

# Lighter means higher, also in grey and with colour blindness.
COLOUR_MAP = "cividis"
NUM_LEVELS = 15
FINE_POINTS = 97
MAX_COLUMNS = 3
# If highest / lowest loss is larger than this, the loss axis of a line is logarithmic.
WIDE = 30
AXES = {
    "random": ("along direction 1", "along direction 2"),
    "eigenvectors": ("along eigenvector 1", "along eigenvector 2"),
    "run": ("towards the other run", "along a random direction"),
    "trajectory": ("along component 1", "along component 2"),
}


class LossGrid(NamedTuple):
    """The loss at the points of a grid over a plane.

    Attributes:
        steps_1: Coordinates along the first direction, float [n1].
        steps_2: Coordinates along the second direction, float [n2].
        loss: The loss, float [n1, n2]; NaN where it was not computed.
    """

    steps_1: Array
    steps_2: Array
    loss: Array


def draw_landscape(analysis: Analysis) -> Figure:
    """Draw one landscape: loss and error along a line, or contours next to the surface.

    Points that were not computed, or where the loss is not finite, stay blank.

    Args:
        analysis: An analysis of the kind landscape.

    Raises:
        ValueError: If its files are broken or no point is finite.
    """
    sentences = [sample(analysis), _directions(analysis), not_finite([analysis])]
    if analysis.settings.get("dimensions") == 1:
        figure = _draw_line(analysis)
    else:
        surface = read_surface(analysis)
        bounds = _bounds([surface])
        figure = new_figure(12.0, 5.2)
        contours = figure.add_subplot(1, 2, 1)
        filled = _draw_contours(contours, surface, bounds, analysis)
        figure.colorbar(filled, label="Loss", ticks=MaxNLocator(6))
        _draw_surface(figure, (1, 2, 2), surface, bounds)
        sentences.append(_cut(bounds))
    set_texts(figure, f"Loss landscape: {moment(analysis)}", sentences)
    return figure


def fig1_surfaces(groups: Sequence[Group]) -> Figure:
    """Draw the loss surfaces around trained SGD and SAM networks with one loss scale, and contours below.

    Args:
        groups: Conditions; those of the setting with most surfaces are drawn, each with the last analysis of
            its first seed.

    Raises:
        ValueError: If there is no two-dimensional landscape analysis, or its files are broken.
    """
    members = largest_comparison(gather(groups, "landscape", dimensions=2))
    columns = members[:MAX_COLUMNS]
    shown = [next(iter(one.by_seed.values()))[-1] for one in columns]
    surfaces = [read_surface(analysis) for analysis in shown]
    bounds = _bounds(surfaces)
    figure = new_figure(4.2 * len(columns) + 1.2, 8.2)
    contours = []
    for column, (one, analysis, surface) in enumerate(zip(columns, shown, surfaces, strict=True), start=1):
        axis = _draw_surface(figure, (2, len(columns), column), surface, bounds)
        axis.set_title(f"{one.group.label}, epoch {analysis.epoch}", fontsize=11)
        contours.append(figure.add_subplot(2, len(columns), len(columns) + column))
        filled = _draw_contours(contours[-1], surface, bounds, analysis)
    figure.colorbar(filled, ax=contours, label="Loss", ticks=MaxNLocator(6))
    sentences = [sample(shown[0]), "One seed of each condition.", _directions(shown[0]), _cut(bounds)]
    sentences.append(not_finite(shown))
    if len(members) > len(columns):
        sentences.append(
            f"Not drawn for lack of space: {len(members) - len(columns)} more of the conditions."
        )
    set_texts(figure, "Loss surfaces around the trained weights", sentences)
    return figure


def read_surface(analysis: Analysis) -> LossGrid:
    """Read the loss of a two-dimensional landscape.

    Raises:
        ValueError: If the file is broken or no point is finite.
    """
    steps_1, steps_2, loss = read_arrays(analysis, "steps_1", "steps_2", "loss")
    if loss.shape != (len(steps_1), len(steps_2)):
        raise ValueError(f"{analysis.arrays}: loss is {loss.shape}, not {(len(steps_1), len(steps_2))}")
    _require_points(analysis, loss)
    return LossGrid(steps_1, steps_2, np.where(np.isfinite(loss), loss, np.nan))


def _draw_line(analysis: Analysis) -> Figure:
    steps, loss, error = read_arrays(analysis, "steps_1", "loss", "error_pct")
    _require_points(analysis, loss)
    loss = np.where(np.isfinite(loss), loss, np.nan)
    figure = new_figure(PANEL_INCHES[0], PANEL_INCHES[1] + 0.4)
    axis = figure.add_subplot()
    lines = axis.plot(steps, loss, "-o", color=SAM_COLOUR, markersize=3, label="loss")
    if np.nanmax(loss) > WIDE * np.nanmin(loss) > 0:
        axis.set_yscale("log")
    else:
        start_at_zero(axis)
    axis.set_xlabel(f"Step {_names(analysis)[0]}")
    axis.set_ylabel("Loss")
    axis.grid(alpha=0.3)
    right = axis.twinx()
    lines += right.plot(steps, error, "--", color=SGD_COLOUR, label="error")
    right.set_ylabel("Error (%)")
    start_at_zero(right)
    if (path := _path(analysis)) is not None:
        heights = np.interp(path[:, 0], steps, loss)
        lines += axis.plot(path[:, 0], heights, "k|", markersize=12, label="kept weights, projected")
    for place in _trained(analysis):
        axis.axvline(place, color="grey", linewidth=1, linestyle=":")
    axis.legend(handles=lines, loc="best")
    return figure


def _draw_contours(
    axis: Axes, surface: LossGrid, bounds: tuple[float, float], analysis: Analysis
) -> ContourSet:
    plane = (surface.steps_1, surface.steps_2, np.ma.masked_invalid(surface.loss.T))
    # Losses above the last level stay white.
    levels = np.linspace(*bounds, NUM_LEVELS)
    filled = axis.contourf(*plane, levels=levels, cmap=COLOUR_MAP)
    axis.contour(*plane, levels=levels[1::2], colors="black", linewidths=0.5)
    trained = _trained(analysis)
    if (path := _path(analysis)) is not None:
        axis.plot(*path.T, "-", color="black", linewidth=2.5)
        axis.plot(*path.T, "-o", color="white", linewidth=1.2, markersize=4, markeredgecolor="black")
    axis.plot(trained, [0] * len(trained), "w+", markersize=10, markeredgewidth=2)
    axis.set_xlabel(f"Step {_names(analysis)[0]}")
    axis.set_ylabel(f"Step {_names(analysis)[1]}")
    if len(trained) == 1 and path is None:
        axis.set_aspect("equal")
        # Fixed numbers of ticks: the layout measures their labels before the panel changes its size.
        for direction in (axis.xaxis, axis.yaxis):
            direction.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    return filled


def _draw_surface(
    figure: Figure,
    place: tuple[int, int, int],
    surface: LossGrid,
    bounds: tuple[float, float],
) -> Any:
    axis = figure.add_subplot(*place, projection="3d")
    fine = _refined(surface)
    below = fine.loss <= bounds[1]
    # One more point on each side, so that the rim is at the height of the cut.
    heights = np.where(binary_dilation(below), np.minimum(fine.loss, bounds[1]), np.nan)
    axis.plot_surface(
        *np.meshgrid(fine.steps_1, fine.steps_2, indexing="ij"),
        heights,
        cmap=COLOUR_MAP,
        norm=Normalize(*bounds),
        rcount=FINE_POINTS,
        ccount=FINE_POINTS,
        antialiased=False,
        rasterized=True,
    )
    axis.set_zlim(*bounds)
    for direction in (axis.xaxis, axis.yaxis, axis.zaxis):
        direction.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    # The contours and the colour bar have the labels of its axes.
    axis.view_init(elev=28, azim=-60)
    return axis


def _refined(surface: LossGrid) -> LossGrid:
    """Return a surface with more points, by linear interpolation, so that the cut has a smooth rim."""
    fine = [_between(steps) for steps in (surface.steps_1, surface.steps_2)]
    linear = RegularGridInterpolator((surface.steps_1, surface.steps_2), surface.loss)
    return LossGrid(fine[0], fine[1], linear(tuple(np.meshgrid(*fine, indexing="ij"))))


def _between(steps: Array) -> Array:
    num_parts = max(1, (FINE_POINTS - 1) // (len(steps) - 1))
    positions = np.arange((len(steps) - 1) * num_parts + 1) / num_parts
    return np.interp(positions, np.arange(len(steps)), steps)


def _bounds(surfaces: Sequence[LossGrid]) -> tuple[float, float]:
    """Return the lowest and the highest loss of the scale that surfaces share; at most twice the median.

    Far from the minimum, the loss grows by orders of magnitude. On its full scale, every minimum looks flat.
    """
    losses = np.concatenate([surface.loss[np.isfinite(surface.loss)] for surface in surfaces])
    lowest, highest = float(losses.min()), float(losses.max())
    # On a flat surface, lowest and highest are equal.
    return lowest, max(min(highest, 2 * float(np.median(losses))), lowest + 1e-6)


def _names(analysis: Analysis) -> tuple[str, str]:
    return AXES.get(str(analysis.settings.get("directions")), AXES["random"])


def _path(analysis: Analysis) -> Array | None:
    """Return the path of the run in the coordinates of its landscape, [n, axes]; None without a path."""
    if analysis.settings.get("directions") != "trajectory":
        return None
    (path,) = read_arrays(analysis, "path")
    if path.ndim != 2 or path.shape[1] != analysis.settings.get("dimensions"):
        raise ValueError(f"{analysis.arrays}: the path has shape {path.shape}; run the analysis again")
    return path


def _trained(analysis: Analysis) -> list[float]:
    """Return the coordinates of trained weights along the first direction."""
    return [0.0, 1.0] if analysis.settings.get("directions") == "run" else [0.0]


def _directions(analysis: Analysis) -> str:
    ways = {
        "random": "Random directions, filter-normalised: a step of 1 has the norm of the filters.",
        "eigenvectors": "Along the top eigenvectors of the Hessian, filter-normalised.",
        "run": "Step 1 is at the weights of the other run.",
        "trajectory": "Along the principal components of the run's path (white), in weight units.",
    }
    return ways.get(str(analysis.settings.get("directions")), ways["random"])


def _cut(bounds: tuple[float, float]) -> str:
    return f"All panels have the same loss scale; losses above {bounds[1]:.3g} are cut off."


def _require_points(analysis: Analysis, loss: Array) -> None:
    if not np.isfinite(loss).any():
        raise ValueError(f"{analysis.arrays}: no point of the landscape is finite yet; continue the analysis")
