"""Common parts of all pictures of errors: panels and their conditions, lines with intervals, captions.

Imports matplotlib only when it draws, so that reading and comparing runs does not load it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sam.figures.style import DOTS_PER_INCH, PANEL_INCHES, SGD_COLOUR, shades
from sam.report.families import families
from sam.report.groups import Group
from sam.report.interval import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 6
SMALL = 9  # font size of captions and legends, in points
NO_BREAK = "\N{NO-BREAK SPACE}"
INTERVAL = "Bars and bands: 95 % Student-t interval over seeds"


class ErrorPanel(NamedTuple):
    """Conditions that share a panel: they agree in everything but the keys that the picture varies.

    Attributes:
        title: A title that no other panel has.
        split: The split of the errors: "test" or "validation".
        groups: The conditions with a complete run.
    """

    title: str
    split: str
    groups: list[Group]

    @property
    def error_label(self) -> str:
        """The label of an axis of errors."""
        return f"{self.split.capitalize()} error (%)"


def panels_of(groups: Iterable[Group], free: Sequence[str] = ()) -> list[ErrorPanel]:
    """Return the panels for conditions with a complete run, in the order of their first conditions.

    Args:
        groups: Conditions.
        free: Dotted keys, in addition to those of SAM, in which the conditions of a panel may differ.
    """
    found = families([group for group in groups if group.complete], free)
    return [ErrorPanel(family.title, family.setting.split, family.groups) for family in found]


def make_panels(num_panels: int, num_columns: int = 2) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, at most 6; unused places of the grid are blank."""
    from matplotlib.figure import Figure

    num_panels = min(num_panels, MAX_PANELS)
    num_columns = min(num_columns, num_panels)
    num_rows = math.ceil(num_panels / num_columns)
    inches = (PANEL_INCHES[0] * num_columns, PANEL_INCHES[1] * num_rows + 0.6)
    figure = Figure(inches, DOTS_PER_INCH, layout="constrained")
    # A list, because `flat` is an iterator that can be used only once.
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for axis in axes[num_panels:]:
        axis.set_axis_off()
    return figure, axes[:num_panels]


def add_caption(figure: Figure, sentences: Iterable[str], num_left_out: int = 0) -> None:
    """Write a caption below the panels.

    Args:
        figure: The figure.
        sentences: Explanations, each with its full stop; empty ones are left out.
        num_left_out: Number of settings that were not drawn, for a last sentence.
    """
    shown = [sentence for sentence in sentences if sentence]
    if num_left_out > 0:
        shown.append(f"Not drawn for lack of space: {num_left_out} more of the settings.")
    # Just under 14 characters of this size fill an inch.
    width = round(13.5 * figure.get_figwidth())
    # A line must not break between a number and its sign.
    text = " ".join(shown).replace(" %", f"{NO_BREAK}%").replace(" = ", f"{NO_BREAK}={NO_BREAK}")
    figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=SMALL)


def describe_panel(axis: Axes, title: str, x_label: str, y_label: str) -> None:
    """Write title and labels of a panel, and draw its grid."""
    axis.set_title("\n".join(textwrap.wrap(title, 85)), fontsize=10)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.3)


def draw_line(
    axis: Axes, points: Iterable[tuple[float, Estimate]], colour: str, label: str, **more: Any
) -> None:
    """Draw means with their 95 % intervals, joined by a line from left to right.

    Args:
        axis: The panel.
        points: The x value and the mean of each point; a mean without an interval gets no bar.
        colour: The colour of line, marks and bars.
        label: The text in the legend.
        more: Further arguments of matplotlib's errorbar.
    """
    ordered = sorted(points, key=lambda point: point[0])
    axis.errorbar(
        [x for x, _ in ordered],
        [mean.mean for _, mean in ordered],
        [math.nan if mean.half_width is None else mean.half_width for _, mean in ordered],
        **{"color": colour, "label": label, "marker": "o", "capsize": 3, **more},
    )


def use_log_axis(axis: Axes, values: Iterable[float], base: float = 10) -> None:
    """Make the x axis logarithmic, with ticks at the values if there is room, else at powers of the base.

    Args:
        axis: The panel.
        values: All x values in the panel; > 0.
        base: Base of the logarithm.
    """
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    axis.set_xscale("log", base=base)
    ordered = sorted(set(values))
    span = math.log(ordered[-1] / ordered[0])
    # A tick label needs about a twentieth of the axis.
    if all(math.log(high / low) > span / 20 for low, high in zip(ordered, ordered[1:], strict=False)):
        axis.xaxis.set_major_locator(FixedLocator(ordered))
        axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def draw_level(axis: Axes, mean: Estimate, colour: str, label: str) -> None:
    """Draw a mean and its 95 % interval as a horizontal line and band over the whole width."""
    axis.axhline(mean.mean, color=colour, linestyle="--", label=label)
    if mean.half_width is not None:
        low, high = mean.mean - mean.half_width, mean.mean + mean.half_width
        axis.axhspan(low, high, color=colour, alpha=0.15, linewidth=0)


def colours_of(groups: Sequence[Group]) -> list[str]:
    """Choose the colour of each condition of one panel.

    Args:
        groups: SGD first, then SAM by rho.

    Returns:
        One hexadecimal colour per condition.
    """
    blues = shades(sum(group.is_sam for group in groups))
    return [blues.pop(0) if group.is_sam else SGD_COLOUR for group in groups]


def final_error(group: Group) -> Estimate:
    """Return the error of a condition on its split after the last epoch, in percent.

    Args:
        group: A condition with a complete run.
    """
    mean = estimate(list(group.values("test_error_pct").values()))
    assert mean is not None, "a complete run has a test error"
    return mean


def num_seeds_text(groups: Iterable[Group]) -> str:
    """Return the numbers of complete runs of conditions, as "n = 3" or "n = 1 to 3"."""
    return range_text([len(group.complete) for group in groups])


def range_text(counts: Sequence[int]) -> str:
    """Return numbers of seeds (at least one) as "n = 3" or "n = 1 to 3"."""
    few, many = min(counts), max(counts)
    return f"n = {few}" if few == many else f"n = {few} to {many}"


def diverged_text(groups: Iterable[Group]) -> str:
    """Return a sentence about runs that diverged; "" if none did."""
    num_diverged = sum(group.num_diverged for group in groups)
    return f"Left out: runs that diverged ({num_diverged})." if num_diverged else ""
