"""First-order SAM compared with second-order SAM during training (Figure 4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sam.figures.curves import error_curve, upper_limit
from sam.figures.epochs import draw_curve, use_whole_epochs
from sam.figures.error_panels import (
    SMALL,
    add_caption,
    describe_panel,
    diverged_text,
    make_panels,
    num_seeds_text,
    panels_of,
)
from sam.figures.style import SAM_COLOUR
from sam.report.groups import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The text in the legend and the colour, by the method of a group; blue and orange of Okabe and Ito.
ORDERS = {"SAM": ("first order", SAM_COLOUR), "SAM second order": ("second order", "#E69F00")}
COLUMNS = ("perturbed_error_pct", "test_error_pct")
MAX_PAIRS = 3


def draw_update_orders(groups: Sequence[Group]) -> Figure:
    """Draw train error at w + eps and test error at w during training, for both orders.

    Second-order SAM keeps the term of the gradient that SAM drops (Eq. 3, appendix C.4).

    Args:
        groups: Conditions; only those of plain SAM and of optimizer.second_order=true are used.

    Returns:
        A figure with a row of two panels for each of at most 3 pairs of conditions.

    Raises:
        ValueError: If no condition has a partner with the other order and the same setting and rho.
    """
    pairs = _pairs(groups)
    if not pairs:
        raise ValueError(
            "no setting has complete runs with both optimizer.second_order=false and "
            "optimizer.second_order=true for the same rho"
        )
    shown = pairs[:MAX_PAIRS]
    figure, axes = make_panels(2 * len(shown))
    for row, (title, split, pair) in enumerate(shown):
        labels = ("Train error at w + eps (%)", f"{split.capitalize()} error at w (%)")
        for axis, column, label in zip(axes[2 * row : 2 * row + 2], COLUMNS, labels, strict=True):
            _draw_panel(axis, pair, column)
            describe_panel(axis, title, "Epoch", label)
    drawn = [group for _, _, pair in shown for group in pair]
    sentences = [
        f"Line: mean over seeds ({num_seeds_text(drawn)}). Band: lowest to highest seed.",
        "The train error is measured on each batch during the epoch, at the perturbed weights.",
        "Errors of the first tenth of training may be above the panel.",
        diverged_text(groups),
    ]
    add_caption(figure, sentences, len(pairs) - len(shown))
    return figure


def _pairs(groups: Sequence[Group]) -> list[tuple[str, str, list[Group]]]:
    """Return title, split and both conditions, for each setting and rho with both orders."""
    pairs = []
    for panel in panels_of(groups):
        by_rho: dict[float | None, list[Group]] = defaultdict(list)
        for group in panel.groups:
            if group.method in ORDERS and all(error_curve(group, column).epochs for column in COLUMNS):
                by_rho[group.rho].append(group)
        pairs += [
            (f"rho {rho:g}: {panel.title}", panel.split, sorted(found, key=lambda group: group.method))
            for rho, found in by_rho.items()
            if len({group.method for group in found}) == len(ORDERS)
        ]
    return pairs


def _draw_panel(axis: Axes, pair: Sequence[Group], column: str) -> None:
    curves = [error_curve(group, column) for group in pair]
    for group, curve in zip(pair, curves, strict=True):
        label, colour = ORDERS[group.method]
        draw_curve(axis, curve, colour, label)
    axis.set_ylim(0, upper_limit(curves))
    use_whole_epochs(axis, [epoch for curve in curves for epoch in curve.epochs])
    axis.legend(fontsize=SMALL)
