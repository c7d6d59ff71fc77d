"""Curves against the epoch: a line for the mean over seeds, a band from the lowest to the highest seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_MARKED = 10  # a line with more epochs has no marks
MAX_TICKS = 12


class Curve(NamedTuple):
    """One number against the epoch, over the seeds of a condition.

    Attributes:
        epochs: All epochs that at least one seed has.
        mean, lowest, highest: For each epoch, over the seeds that have it.
    """

    epochs: list[int]
    mean: list[float]
    lowest: list[float]
    highest: list[float]


def curve_of(by_epoch: Mapping[int, Sequence[float]]) -> Curve:
    """Combine the seeds of a condition.

    Args:
        by_epoch: For each epoch, the values of the seeds, at least one.
    """
    epochs = sorted(by_epoch)
    values = [by_epoch[epoch] for epoch in epochs]
    return Curve(
        epochs,
        [sum(at_epoch) / len(at_epoch) for at_epoch in values],
        [min(at_epoch) for at_epoch in values],
        [max(at_epoch) for at_epoch in values],
    )


def draw_curve(axis: Axes, curve: Curve, colour: str, label: str, **more: Any) -> None:
    """Draw a curve with its band.

    Args:
        axis: The panel.
        curve: The curve.
        colour: The colour of line, marks and band.
        label: The text in the legend.
        more: Further arguments of matplotlib's plot.
    """
    # A curve with few points needs marks: a single epoch makes no line.
    marker = "o" if len(curve.epochs) <= MAX_MARKED else ""
    axis.plot(curve.epochs, curve.mean, **{"color": colour, "label": label, "marker": marker, **more})
    if curve.lowest != curve.highest:
        axis.fill_between(curve.epochs, curve.lowest, curve.highest, color=colour, alpha=0.15, linewidth=0)


def use_whole_epochs(axis: Axes, epochs: Collection[int]) -> None:
    """Put ticks at the drawn epochs if these are few and far enough apart, else at whole numbers.

    Args:
        axis: The panel.
        epochs: All epochs in the panel; at least one.
    """
    from matplotlib.ticker import FixedLocator, MaxNLocator

    ordered = sorted(set(epochs))
    # A tick label needs about a twentieth of the axis.
    least = (ordered[-1] - ordered[0]) / 20
    has_room = all(after - before > least for before, after in zip(ordered, ordered[1:], strict=False))
    if len(ordered) <= MAX_TICKS and has_room:
        axis.xaxis.set_major_locator(FixedLocator(ordered))
    else:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
