"""Error against the cost of training: epochs, forward-backward passes, seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from sam.figures.error_panels import (
    INTERVAL,
    SMALL,
    add_caption,
    colours_of,
    describe_panel,
    diverged_text,
    draw_line,
    final_error,
    make_panels,
    num_seeds_text,
    panels_of,
    use_log_axis,
)
from sam.record.values import values_of
from sam.report.equal_compute import ComputeFamily, ComputeRow, build_compute_families
from sam.report.groups import Group
from sam.report.interval import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_FAMILIES = 3
# The two costs; these texts are also the labels of the x axis.
PASSES, SECONDS = "Forward-backward passes per training image", "Seconds of training"


def draw_error_by_compute(groups: Sequence[Group]) -> Figure:
    """Draw error against forward-backward passes per image and against seconds, for SGD and SAM.

    A mark is the final error of runs of one length. A thin line is their mean error during training.

    Args:
        groups: Conditions.

    Returns:
        A figure with a row of two panels for each of at most 3 families.

    Raises:
        ValueError: If no setting has both SGD and a method with more passes per image.
    """
    found = build_compute_families(groups)
    if not found:
        raise ValueError("no setting (apart from epochs) has complete runs of both SGD and SAM")
    shown = found[:MAX_FAMILIES]
    figure, axes = make_panels(2 * len(shown))
    for row, family in enumerate(shown):
        for axis, x_label in zip(axes[2 * row : 2 * row + 2], (PASSES, SECONDS), strict=True):
            _draw_family(axis, family, x_label)
            describe_panel(axis, family.title, x_label, f"{family.split.capitalize()} error (%)")
    drawn = [compute.group for family in shown for compute in family.rows]
    sentences = [
        "Marks: errors after the last epoch of runs of different lengths.",
        f"{INTERVAL} ({num_seeds_text(drawn)}).",
        "Thin lines: mean error along training.",
        "Seconds are wall-clock time; compare them only for runs on the same machine with the same load.",
        diverged_text(groups),
    ]
    add_caption(figure, sentences, len(found) - len(shown))
    return figure


def draw_error_by_epochs(groups: Sequence[Group]) -> Figure:
    """Draw final error against the number of epochs, one line per method.

    Args:
        groups: Conditions.

    Returns:
        A figure with at most 6 panels, one per setting (apart from epochs).

    Raises:
        ValueError: If no method has runs of two lengths.
    """
    panels = [(panel, _by_label(panel.groups)) for panel in panels_of(groups, ["epochs"])]
    panels = [(panel, lines) for panel, lines in panels if any(len(line) > 1 for line in lines.values())]
    if not panels:
        raise ValueError("no method has complete runs of two lengths that differ only in epochs")
    figure, axes = make_panels(len(panels))
    for axis, (panel, lines) in zip(axes, panels, strict=False):
        colours = colours_of([line[0] for line in lines.values()])
        for (label, line), colour in zip(lines.items(), colours, strict=True):
            points = [(float(group.config["epochs"]), final_error(group)) for group in line]
            draw_line(axis, points, colour, label)
        use_log_axis(axis, [int(group.config["epochs"]) for group in panel.groups], base=2)
        describe_panel(axis, panel.title, "Epochs of training", panel.error_label)
        axis.legend(fontsize=SMALL)
    drawn = [group for panel, _ in panels[: len(axes)] for group in panel.groups]
    sentences = [
        "Error after the last epoch. Each mark has its own runs, whose learning rate ends at 0.",
        f"{INTERVAL} ({num_seeds_text(drawn)}).",
        diverged_text(groups),
    ]
    add_caption(figure, sentences, len(panels) - len(axes))
    return figure


def _draw_family(axis: Axes, family: ComputeFamily, x_label: str) -> None:
    rows: dict[str, list[ComputeRow]] = defaultdict(list)
    for row in family.rows:
        rows[row.group.label].append(row)
    lines = sorted(rows.values(), key=lambda line: (line[0].group.is_sam, line[0].group.rho or 0.0))
    colours = colours_of([line[0].group for line in lines])
    for line, colour in zip(lines, colours, strict=True):
        points = [point for row in line if (point := _point(row, x_label)) is not None]
        draw_line(axis, points, colour, line[0].group.label)
        for row in line:
            costs, errors = _way(row.group, x_label)
            axis.plot(costs, errors, color=colour, alpha=0.35, linewidth=1)
    # The high errors of the first epochs would make the differences at the end too small to see.
    highest = max(_highest(row.test_error_pct) for row in family.rows)
    axis.set_ylim(0, 1.6 * highest or 1.0)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(fontsize=SMALL)


def _point(row: ComputeRow, x_label: str) -> tuple[float, Estimate] | None:
    if row.test_error_pct is None or (x_label == SECONDS and row.seconds is None):
        return None
    cost = row.passes_per_image
    if x_label == SECONDS and row.seconds is not None:
        cost = row.seconds.mean
    return cost, row.test_error_pct


def _way(group: Group, x_label: str) -> tuple[list[float], list[float]]:
    """Return the cost up to the end of each epoch and the error there, means over the runs with both."""
    # metrics.csv has the mean passes per update; an epoch uses each image dataset.repeats times.
    column, factor = "seconds", 1
    if x_label == PASSES:
        column, factor = "passes", int(values_of(group.config)["dataset.repeats"])
    ways = []
    for run in group.complete:
        if all(column in row and "test_error_pct" in row for row in run.metrics):
            costs = accumulate(factor * row[column] for row in run.metrics)
            errors = (row["test_error_pct"] for row in run.metrics)
            ways.append(list(zip(costs, errors, strict=True)))
    # Runs of one condition have the same number of epochs.
    epochs = list(zip(*ways, strict=False))
    means = [[sum(values) / len(values) for values in zip(*epoch, strict=True)] for epoch in epochs]
    return [cost for cost, _ in means], [error for _, error in means]


def _by_label(groups: Iterable[Group]) -> dict[str, list[Group]]:
    lines: dict[str, list[Group]] = defaultdict(list)
    for group in sorted(groups, key=lambda group: (group.is_sam, group.rho or 0.0)):
        lines[group.label].append(group)
    return lines


def _highest(mean: Estimate | None) -> float:
    return 0.0 if mean is None else mean.mean + (mean.half_width or 0.0)
