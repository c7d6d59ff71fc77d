"""Error curves of a comparison, drawn with matplotlib's Agg backend, so no display is needed."""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sam.report.groups import Group
from sam.report.interval import estimate
from sam.report.markup import format_estimate
from sam.report.settings import setting_titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 6
PANEL_INCHES = (7.0, 4.6)
DOTS_PER_INCH = 100
# Vermilion and blue of Okabe and Ito, apart for every common kind of colour blindness and in grey.
SGD_COLOUR = "#D55E00"
SAM_COLOUR = "#0072B2"
# More SAM conditions: shades from light to dark with growing rho.
LIGHTEST_SAM, DARKEST_SAM = "#8CC8EE", "#00263D"


class Curve(NamedTuple):
    """One error against the epoch, over the seeds of a condition.

    Attributes:
        epochs: Every epoch that some seed has.
        mean, lowest, highest: In percent, over the seeds that have the epoch.
    """

    epochs: list[int]
    mean: list[float]
    lowest: list[float]
    highest: list[float]


def draw_error_curves(groups: Sequence[Group], path: Path) -> int:
    """Draw test (or validation) and train error against the epoch, one panel per setting, as a PNG.

    Args:
        groups: Conditions; those without a complete run are left out.
        path: The file to write.

    Returns:
        How many panels were drawn; no file is written where there is nothing to draw.
    """
    panels = _panels(groups)
    if not panels:
        return 0
    # Imported here, so that tables cost no start-up time of matplotlib.
    from matplotlib.figure import Figure

    shown = panels[:MAX_PANELS]
    num_columns = min(2, len(shown))
    num_rows = math.ceil(len(shown) / num_columns)
    inches = (PANEL_INCHES[0] * num_columns, PANEL_INCHES[1] * num_rows + 0.6)
    figure = Figure(inches, DOTS_PER_INCH, layout="constrained")
    # The iterator `flat` could be walked only once.
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    titles = setting_titles(group.setting for group in groups)
    for axis, members in zip(axes, shown, strict=False):
        _draw_panel(axis, members, titles[members[0].setting.key], members[0].setting.split)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    figure.supxlabel(_caption(len(panels) - len(shown)), fontsize=9)
    figure.savefig(path, format="png")
    return len(shown)


def error_curve(group: Group, column: str) -> Curve:
    """Combine one column of metrics.csv over the complete runs of a condition.

    Args:
        group: The condition.
        column: Name of a column in percent.

    Returns:
        The curve; an epoch that some seeds lack is averaged over the others.
    """
    by_epoch: dict[int, dict[int, float]] = defaultdict(dict)
    for position, run in enumerate(group.complete):
        for row in run.metrics:
            if math.isfinite(row.get(column, math.nan)):
                by_epoch[int(row["epoch"])][position] = row[column]
    epochs = sorted(by_epoch)
    values = [list(by_epoch[epoch].values()) for epoch in epochs]
    return Curve(
        epochs,
        [sum(at_epoch) / len(at_epoch) for at_epoch in values],
        [min(at_epoch) for at_epoch in values],
        [max(at_epoch) for at_epoch in values],
    )


def colours_of(groups: Sequence[Group]) -> list[str]:
    """Choose the colour of each condition of one panel.

    Args:
        groups: SGD first, then SAM by rho.

    Returns:
        One hexadecimal colour per condition.
    """
    num_sam = sum(group.is_sam for group in groups)
    shades = [SAM_COLOUR] if num_sam == 1 else _shades(num_sam)
    return [shades.pop(0) if group.is_sam else SGD_COLOUR for group in groups]


def _panels(groups: Sequence[Group]) -> list[list[Group]]:
    by_setting: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        if error_curve(group, "test_error_pct").epochs:
            by_setting[group.setting.key].append(group)
    return list(by_setting.values())


def _shades(count: int) -> list[str]:
    light, dark = (bytes.fromhex(name[1:]) for name in (LIGHTEST_SAM, DARKEST_SAM))
    shades = []
    for step in range(count):
        share = step / (count - 1)
        mixed = (round(a + share * (b - a)) for a, b in zip(light, dark, strict=True))
        shades.append(f"#{bytes(mixed).hex().upper()}")
    return shades


def _draw_panel(axis: Axes, groups: Sequence[Group], title: str, split: str) -> None:
    from matplotlib.ticker import MaxNLocator

    curves = []
    for group, colour in zip(groups, colours_of(groups), strict=True):
        test, train = error_curve(group, "test_error_pct"), error_curve(group, "train_error_pct")
        _draw_curve(axis, test, "-", colour, _legend_text(group))
        # matplotlib keeps labels that start with an underscore out of the legend.
        _draw_curve(axis, train, "--", colour, "_train")
        curves += [test, train]
    axis.set_ylim(0, _upper_limit(curves))
    axis.set_title("\n".join(textwrap.wrap(title, 85)), fontsize=10)
    axis.set_xlabel("Epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.set_ylabel(f"{split.capitalize()} (solid) and train (dashed) error (%)")
    axis.grid(alpha=0.3)
    axis.legend(loc="best", fontsize=9, title=f"Final {split} error (%)", title_fontsize=9)


def _draw_curve(axis: Axes, curve: Curve, style: str, colour: str, label: str) -> None:
    # Few points need marks, filled for test and hollow for train: one epoch makes no line.
    axis.plot(
        curve.epochs,
        curve.mean,
        style,
        color=colour,
        label=label,
        marker="o" if len(curve.epochs) <= 10 else "",
        markerfacecolor=colour if style == "-" else "white",
    )
    if curve.lowest != curve.highest:
        axis.fill_between(curve.epochs, curve.lowest, curve.highest, color=colour, alpha=0.15, linewidth=0)


def _legend_text(group: Group) -> str:
    num_runs = len(group.complete)
    mean = estimate(list(group.values("test_error_pct").values()))
    return f"{group.label}: {format_estimate(mean, num_runs)} (n = {num_runs})"


def _upper_limit(curves: Sequence[Curve]) -> float:
    # The first tenth would squeeze the end, which matters, into the bottom of the panel.
    last_epoch = max(epoch for curve in curves for epoch in curve.epochs)
    highest = max(
        error
        for curve in curves
        for epoch, error in zip(curve.epochs, curve.highest, strict=True)
        if epoch >= last_epoch / 10
    )
    return 1.05 * highest if highest > 0 else 1.0


def _caption(num_left_out: int) -> str:
    caption = (
        "Line: mean over seeds; band: lowest to highest seed.\n"
        "The first tenth of training may lie above the panel."
    )
    if num_left_out:
        caption += f" Not drawn for lack of space: {num_left_out} more of the settings."
    return caption
