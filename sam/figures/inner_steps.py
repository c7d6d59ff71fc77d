"""What more ascent steps find along training (Foret et al. 2021, appendix C.5, Figure 7)."""

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sam.figures.analysis_frame import (
    ball,
    draw_band,
    new_figure,
    sample,
    seeds,
    set_texts,
    start_at_zero,
    steps_label,
    use_epoch_axis,
)
from sam.figures.style import shades
from sam.report.groups import Group
from sam.report.measured import Measured, Rise, gather, largest_comparison, rises

MAX_COLUMNS = 3
# The paper's L is the training error; the loss is what is climbed.
ROWS = {"error_points": "Rise of the error (points)", "loss": "Rise of the loss"}


def fig7(groups: Sequence[Group], m: int | None = None) -> Figure:
    """Draw the rise of error and loss against the epoch, a line per number of ascent steps.

    Args:
        groups: Conditions; those of the setting with most sharpness analyses are drawn, a column each.
        m: Images that share one perturbation; None takes the m of the training where it was measured, else
            the largest that was.

    Raises:
        ValueError: If there is no sharpness analysis, none of this m, or its files are broken.
    """
    members = largest_comparison(gather(groups, "sharpness"))
    columns = members[:MAX_COLUMNS]
    found = [[(made.epoch, row) for made in one.analyses for row in rises(made)] for one in columns]
    chosen = _chosen_m({row.m for rows in found for _, row in rows}, columns[0], m)
    figure = new_figure(0.8 + 4.2 * len(columns), 7.6)
    panels = figure.subplots(len(ROWS), len(columns), sharex=True, sharey="row", squeeze=False)
    for column, (one, rows) in enumerate(zip(columns, found, strict=True)):
        panels[0][column].set_title(one.group.label, fontsize=11)
        for axis, key in zip(panels[:, column], ROWS, strict=True):
            _draw_lines(axis, [(epoch, row) for epoch, row in rows if row.m == chosen], key)
            axis.label_outer()
    for axis, label in zip(panels[:, 0], ROWS.values(), strict=True):
        axis.set_ylabel(label)
        start_at_zero(axis)
    panels[0][0].legend(loc="best", fontsize=9)
    first = columns[0].analyses[0]
    sentences = [
        sample(first),
        f"Highest loss in a {ball(first)}, m = {chosen}.",
        f"Line: mean over seeds ({seeds(columns)}); band: lowest to highest seed.",
        f"Not drawn for lack of space: {len(members) - len(columns)} more of the conditions."
        if len(members) > len(columns)
        else "",
    ]
    set_texts(figure, "Inner maximisation during training", sentences)
    return figure


def _chosen_m(measured: set[int], one: Measured, asked: int | None) -> int:
    if asked is not None and asked not in measured:
        raise ValueError(f"m={asked} was not measured; there are {', '.join(map(str, sorted(measured)))}")
    trained = one.group.config.get("m")
    return asked or (trained if trained in measured else max(measured))


def _draw_lines(axis: Axes, rows: Sequence[tuple[int, Rise]], key: str) -> None:
    all_steps = sorted({row.ascent_steps for _, row in rows})
    for style, (steps, colour) in enumerate(zip(all_steps, shades(len(all_steps)), strict=True)):
        by_epoch: dict[int, list[float]] = defaultdict(list)
        for epoch, row in rows:
            if row.ascent_steps == steps:
                by_epoch[epoch].append(getattr(row, key))
        draw_band(axis, by_epoch, colour, style, steps_label(steps))
    use_epoch_axis(axis)
