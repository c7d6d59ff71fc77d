"""Error against the radius of SAM's ball: for several m, for all methods, and for the balls of Figure 6."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sam.figures.error_panels import (
    INTERVAL,
    SMALL,
    ErrorPanel,
    add_caption,
    describe_panel,
    diverged_text,
    draw_level,
    draw_line,
    final_error,
    make_panels,
    num_seeds_text,
    panels_of,
    use_log_axis,
)
from sam.figures.style import SGD_COLOUR, shades
from sam.report.families import sgd_of
from sam.report.groups import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The balls of Figure 6, by the method of a group.
BALLS = {"SAM": "2-norm", "SAM p=inf": "infinity norm", "SAM random direction": "random direction, 2-norm"}
# Distinguishable from SGD's vermilion and from each other with common colour blindness (Okabe and Ito).
COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v")
SHIFT = 0.01  # horizontal distance between lines, as a share of the largest rho


def draw_rho_by_m(groups: Sequence[Group]) -> Figure:
    """Draw test error against rho, one line per m (Figure 3 middle).

    SGD with the same m is rho = 0. There is one panel per setting (apart from m) and method.

    Args:
        groups: Conditions.

    Returns:
        A figure with at most 6 panels.

    Raises:
        ValueError: If no setting has a method with two rhos above 0.
    """
    panels = [
        (panel, method, _lines_by_m(panel.groups, method))
        for panel in panels_of(groups, ["m"])
        for method in _methods(panel.groups)
    ]
    # SGD with a single rho is not a sweep.
    panels = [p for p in panels if any(sum(group.is_sam for group in line) > 1 for line in p[2].values())]
    if not panels:
        raise ValueError("no setting has complete runs of two rhos above 0")
    figure, axes = make_panels(len(panels))
    for axis, (panel, method, lines) in zip(axes, panels, strict=False):
        _draw_lines_by_m(axis, lines)
        describe_panel(axis, f"{method}: {panel.title}", "rho", panel.error_label)
        axis.legend(title="m", fontsize=SMALL, title_fontsize=SMALL)
    drawn = [group for _, _, lines in panels[: len(axes)] for line in lines.values() for group in line]
    sentences = [
        "Error after the last epoch; rho = 0 is SGD with micro-batches of m images.",
        "Lines are shifted horizontally by a small amount.",
        f"{INTERVAL} ({num_seeds_text(drawn)}).",
        diverged_text(groups),
    ]
    add_caption(figure, sentences, len(panels) - len(axes))
    return figure


def draw_rho(groups: Sequence[Group]) -> Figure:
    """Draw test (or validation) error against rho: one line per method, and SGD as a band.

    Args:
        groups: Conditions.

    Returns:
        A figure with at most 6 panels, one per setting.

    Raises:
        ValueError: If no setting has two rhos of one method.
    """
    panels = [(panel, _sweeps(panel.groups)) for panel in panels_of(groups)]
    panels = [(panel, lines) for panel, lines in panels if lines]
    if not panels:
        raise ValueError("no setting has complete runs of two rhos of one method")
    return _draw_radii(panels, str, "rho", diverged_text(groups))


def draw_balls(groups: Sequence[Group]) -> Figure:
    """Draw test error against the radius of three balls, and SGD as a band (Figure 6).

    The balls are those of the 2-norm and the infinity norm, and the 2-norm ball with a random direction.

    Args:
        groups: Conditions.

    Returns:
        A figure with at most 6 panels, one per setting with at least two of the balls.

    Raises:
        ValueError: If no setting has runs of two of the balls.
    """
    panels = []
    for panel in panels_of(groups):
        lines: dict[str, list[Group]] = defaultdict(list)
        for group in panel.groups:
            if group.method in BALLS and group.rho:
                lines[group.method].append(group)
        if len(lines) > 1:
            panels.append((panel, lines))
    if not panels:
        raise ValueError(
            "no setting has complete runs of at least two of: optimizer.p=2, optimizer.p=inf, "
            "optimizer.direction=random"
        )
    return _draw_radii(panels, BALLS.__getitem__, "Radius of the ball, in its norm", diverged_text(groups))


def _draw_radii(
    panels: Sequence[tuple[ErrorPanel, Mapping[str, Sequence[Group]]]],
    name_of: Callable[[str], str],
    x_label: str,
    diverged: str,
) -> Figure:
    figure, axes = make_panels(len(panels))
    for axis, (panel, lines) in zip(axes, panels, strict=False):
        _draw_radius_panel(axis, panel, lines, name_of)
        describe_panel(axis, panel.title, x_label, panel.error_label)
        axis.legend(fontsize=SMALL)
    drawn = [group for _, lines in panels[: len(axes)] for line in lines.values() for group in line]
    sentences = ["Error after the last epoch.", f"{INTERVAL} ({num_seeds_text(drawn)}).", diverged]
    add_caption(figure, sentences, len(panels) - len(axes))
    return figure


def _draw_radius_panel(
    axis: Axes, panel: ErrorPanel, lines: Mapping[str, Sequence[Group]], name_of: Callable[[str], str]
) -> None:
    for position, (method, line) in enumerate(lines.items()):
        colour = COLOURS[position % len(COLOURS)]
        draw_line(axis, [(_rho(group), final_error(group)) for group in line], colour, name_of(method))
    if (sgd := sgd_of(panel.groups)) is not None:
        draw_level(axis, final_error(sgd), SGD_COLOUR, f"SGD (n = {len(sgd.complete)})")
    use_log_axis(axis, [_rho(group) for line in lines.values() for group in line])


def _draw_lines_by_m(axis: Axes, lines: Mapping[float, Sequence[Group]]) -> None:
    # The shift keeps bars from covering each other.
    largest = max(_rho(group) for line in lines.values() for group in line)
    for position, (m, line) in enumerate(lines.items()):
        shift = SHIFT * largest * (position - (len(lines) - 1) / 2)
        points = [(_rho(group) + shift, final_error(group)) for group in line]
        label = "whole batch" if math.isinf(m) else f"{m:g}"
        colour, marker = shades(len(lines))[position], MARKERS[position % len(MARKERS)]
        draw_line(axis, points, colour, label, marker=marker)


def _sweeps(groups: Iterable[Group]) -> dict[str, list[Group]]:
    """Return the conditions of each method with several rhos above 0, since a log axis has no 0."""
    lines: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        if group.rho:
            lines[group.method].append(group)
    return {method: line for method, line in lines.items() if len({group.rho for group in line}) > 1}


def _methods(groups: Iterable[Group]) -> list[str]:
    return list(dict.fromkeys(group.method for group in groups if group.is_sam))


def _lines_by_m(groups: Sequence[Group], method: str) -> dict[float, list[Group]]:
    """Return SGD and the conditions of a method for each m, the smallest first."""
    by_m: dict[float, list[Group]] = defaultdict(list)
    for group in groups:
        by_m[_m(group)].append(group)
    lines = {}
    for m in sorted(by_m):
        found = [group for group in by_m[m] if group.method == method]
        sgd = sgd_of(by_m[m])
        if found:
            lines[m] = found if sgd is None else [sgd, *found]
    return lines


def _m(group: Group) -> float:
    """Return the images per micro-batch; infinity if a micro-batch is the whole batch."""
    m = group.config.get("m")
    return math.inf if m is None else float(m)


def _rho(group: Group) -> float:
    return group.rho or 0.0
