"""Error curves: test and train error against the epoch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sam.figures.epochs import Curve, curve_of, draw_curve, use_whole_epochs
from sam.figures.error_panels import (
    SMALL,
    add_caption,
    colours_of,
    describe_panel,
    diverged_text,
    final_error,
    make_panels,
    panels_of,
)
from sam.report.groups import Group
from sam.report.markup import format_estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_INSIDE = 3  # with more conditions, the legend is below the panel
CAPTION = (
    "Line: mean over seeds. Band: lowest to highest seed. Legend: 95 % Student-t interval. "
    "Errors of the first tenth of training may be above the panel."
)


def draw_error_curves(groups: Sequence[Group]) -> Figure:
    """Draw test (or validation) and train error against the epoch, one panel per setting.

    Args:
        groups: Conditions; those without a complete run are left out.

    Returns:
        A figure with at most 6 panels.

    Raises:
        ValueError: If no complete run has an epoch.
    """
    found = panels_of([group for group in groups if _has_curve(group)])
    if not found:
        raise ValueError("no complete run has epochs in its metrics.csv")
    figure, axes = make_panels(len(found))
    for axis, panel in zip(axes, found, strict=False):
        _draw_panel(axis, panel.groups, panel.title, panel.split)
    add_caption(figure, [CAPTION, diverged_text(groups)], len(found) - len(axes))
    return figure


def error_curve(group: Group, column: str) -> Curve:
    """Combine one column of metrics.csv over the complete runs of a condition.

    Args:
        group: The condition.
        column: Name of a column with percentages.

    Returns:
        The curve in percent; if some seeds lack an epoch, the mean is over the others.
    """
    by_epoch: dict[int, dict[int, float]] = defaultdict(dict)
    for position, run in enumerate(group.complete):
        for row in run.metrics:
            if math.isfinite(row.get(column, math.nan)):
                by_epoch[int(row["epoch"])][position] = row[column]
    return curve_of({epoch: list(values.values()) for epoch, values in by_epoch.items()})


def upper_limit(curves: Sequence[Curve]) -> float:
    """Return the upper limit of an error axis; only errors of the first tenth of training may be above it."""
    # The high errors of the first tenth would make the differences at the end too small to see.
    last_epoch = max(epoch for curve in curves for epoch in curve.epochs)
    highest = max(
        error
        for curve in curves
        for epoch, error in zip(curve.epochs, curve.highest, strict=True)
        if epoch >= last_epoch / 10
    )
    return 1.05 * highest if highest > 0 else 1.0


def _has_curve(group: Group) -> bool:
    # The last row is enough: there may be thousands of runs, and only a few are drawn.
    return any(math.isfinite(run.last_row.get("test_error_pct", math.nan)) for run in group.complete)


def _draw_panel(axis: Axes, groups: Sequence[Group], title: str, split: str) -> None:
    curves = []
    for group, colour in zip(groups, colours_of(groups), strict=True):
        test, train = error_curve(group, "test_error_pct"), error_curve(group, "train_error_pct")
        draw_curve(axis, test, colour, _legend_text(group))
        # matplotlib keeps labels that start with an underscore out of the legend.
        draw_curve(axis, train, colour, "_train", linestyle="--", markerfacecolor="white")
        curves += [test, train]
    axis.set_ylim(0, upper_limit(curves))
    describe_panel(axis, title, "Epoch", f"{split.capitalize()} (solid) and train (dashed) error (%)")
    use_whole_epochs(axis, [epoch for curve in curves for epoch in curve.epochs])
    # There is no room for a long legend among the curves.
    place: dict[str, Any] = {"loc": "best"}
    if len(groups) > MAX_INSIDE:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "ncols": 2}
    axis.legend(**place, fontsize=SMALL, title=f"Final {split} error (%)", title_fontsize=SMALL)


def _legend_text(group: Group) -> str:
    num_runs = len(group.complete)
    return f"{group.label}: {format_estimate(final_error(group), num_runs)} (n = {num_runs})"
