"""The rise of the loss for several numbers of ascent steps, during training (Foret et al. 2021, Figure 7)."""

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sam.figures.analysis_frame import marks, new_figure, not_finite, sample, seeds, set_texts, start_at_zero
from sam.figures.epochs import curve_of, draw_curve, use_whole_epochs
from sam.figures.error_panels import describe_panel
from sam.figures.style import shades
from sam.report.groups import Group
from sam.report.measured import Measured, Rise, ball, gather, largest_comparison, rises, steps_text

MAX_COLUMNS = 3
# The paper shows the training error; the ascent steps increase the loss.
ROWS = {"error_points": "Rise of the error (points)", "loss": "Rise of the loss"}


def fig7(groups: Sequence[Group]) -> Figure:
    """Draw the rise of error and loss against the epoch, one line per number of ascent steps.

    m is the m of the training if it was measured, else the largest measured m.

    Args:
        groups: Conditions; those of the setting with most sharpness analyses are drawn, one column each.

    Raises:
        ValueError: If there is no sharpness analysis, or its files are broken.
    """
    members = largest_comparison(gather(groups, "sharpness"))
    columns = members[:MAX_COLUMNS]
    found = [[(made.epoch, row) for made in one.analyses for row in rises(made)] for one in columns]
    chosen = _chosen_m({row.m for rows in found for _, row in rows}, columns[0])
    figure = new_figure(0.8 + 4.2 * len(columns), 7.6)
    panels = figure.subplots(len(ROWS), len(columns), sharex=True, sharey="row", squeeze=False)
    for column, (one, rows) in enumerate(zip(columns, found, strict=True)):
        for axis, (key, label) in zip(panels[:, column], ROWS.items(), strict=True):
            _draw_lines(axis, [(epoch, row) for epoch, row in rows if row.m == chosen], key)
            describe_panel(axis, one.group.label if key == next(iter(ROWS)) else "", "Epoch", label)
            axis.label_outer()
    use_whole_epochs(panels[0][0], [epoch for one in columns for epoch in one.epochs])
    for axis in panels[:, 0]:
        start_at_zero(axis)
    panels[0][0].legend(loc="best", fontsize=9)
    first = columns[0].analyses[0]
    sentences = [
        sample(first),
        f"Highest loss in {ball(first)}, m = {chosen}.",
        f"Line: mean over seeds ({seeds(columns)}). Band: lowest to highest seed.",
        f"Not drawn for lack of space: {len(members) - len(columns)} more of the conditions."
        if len(members) > len(columns)
        else "",
        not_finite(analysis for one in columns for analysis in one.analyses),
    ]
    set_texts(figure, "Inner maximisation during training", sentences)
    return figure


def _chosen_m(measured: set[int], one: Measured) -> int:
    trained = one.group.config.get("m")
    return trained if trained in measured else max(measured)


def _draw_lines(axis: Axes, rows: Sequence[tuple[int, Rise]], key: str) -> None:
    all_steps = sorted({row.ascent_steps for _, row in rows})
    for style, (steps, colour) in enumerate(zip(all_steps, shades(len(all_steps)), strict=True)):
        by_epoch: dict[int, list[float]] = defaultdict(list)
        for epoch, row in rows:
            if row.ascent_steps == steps:
                by_epoch[epoch].append(getattr(row, key))
        draw_curve(axis, curve_of(by_epoch), colour, steps_text(steps), **marks(style), markersize=5)
