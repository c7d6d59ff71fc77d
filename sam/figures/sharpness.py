"""Pictures of m-sharpness: how far the loss rises when m images share one perturbation."""

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sam.figures.analysis_frame import (
    LINES,
    MARKERS,
    ball,
    moment,
    new_figure,
    sample,
    seeds,
    set_texts,
    start_at_zero,
    steps_label,
    use_m_axis,
)
from sam.figures.error_panels import INTERVAL, colours_of, describe_panel, draw_line, make_panels
from sam.figures.style import PANEL_INCHES, shades
from sam.report.analyses import Analysis
from sam.report.groups import Group
from sam.report.interval import Estimate, estimate
from sam.report.measured import Measured, by_setting, final_rises, gather, rises
from sam.report.settings import setting_titles

# Of the normal distribution: half-width of a 95 % interval in standard errors.
NORMAL_QUANTILE = 1.96


def draw_sharpness(analysis: Analysis) -> Figure:
    """Draw the rise of loss and error against m, a line per number of ascent steps.

    Args:
        analysis: Of the kind sharpness.

    Raises:
        ValueError: If its file is broken.
    """
    rows = sorted(rises(analysis))
    all_steps = sorted({row.ascent_steps for row in rows})
    figure = new_figure(1.5 * PANEL_INCHES[0], PANEL_INCHES[1] + 0.2)
    loss_axis, error_axis = figure.subplots(1, 2)
    for style, (steps, colour) in enumerate(zip(all_steps, shades(len(all_steps)), strict=True)):
        line = [row for row in rows if row.ascent_steps == steps]
        sizes = [row.m for row in line]
        bars = [NORMAL_QUANTILE * (row.standard_error or 0) for row in line]
        marks = {
            "color": colour,
            "linestyle": LINES[style % len(LINES)],
            "marker": MARKERS[style % len(MARKERS)],
        }
        label = steps_label(steps)
        loss_axis.errorbar(sizes, [row.loss for row in line], bars, capsize=3, label=label, **marks)
        error_axis.plot(sizes, [row.error_points for row in line], label=label, **marks)
    for axis, name in ((loss_axis, "Rise of the loss"), (error_axis, "Rise of the error (points)")):
        use_m_axis(axis, [row.m for row in rows])
        axis.set_ylabel(name)
        start_at_zero(axis)
    loss_axis.legend(loc="best")
    bars_text = "Bars: 95 % interval of the mean over the subsets of m images; the whole sample has none."
    sentences = [sample(analysis), f"Highest loss in a {ball(analysis)}.", bars_text]
    set_texts(figure, f"m-sharpness: {moment(analysis)}", sentences)
    return figure


def sharpness_by_condition(groups: Sequence[Group]) -> Figure:
    """Draw the m-sharpness of the conditions of each setting after their last epoch, one ascent step.

    Args:
        groups: Conditions; a panel per setting that has a sharpness analysis, at most six.

    Raises:
        ValueError: If there is no sharpness analysis, or its files are broken.
    """
    panels = by_setting(gather(groups, "sharpness"))
    figure, axes = make_panels(len(panels))
    titles = setting_titles(members[0].group.setting for members in panels)
    for axis, members in zip(axes, panels, strict=False):
        _draw_conditions(axis, members)
        # Analyses are alike within a panel, not from panel to panel.
        y_label = f"Rise of the loss, {ball(members[0].analyses[0])}"
        describe_panel(axis, titles[members[0].group.setting.key], axis.get_xlabel(), y_label)
    shown = [one for members in panels[: len(axes)] for one in members]
    samples = dict.fromkeys(sample(one.analyses[0]) for one in shown)
    sentences = ["After the last epoch that was looked at.", *samples, f"{INTERVAL} ({seeds(shown)})."]
    set_texts(figure, "m-sharpness of the trained networks", sentences, len(panels) - len(axes))
    return figure


def _draw_conditions(axis: Axes, members: Sequence[Measured]) -> None:
    sizes: set[float] = set()
    # Bars of one m would lie on each other.
    apart = [2 ** (0.15 * (place - (len(members) - 1) / 2)) for place in range(len(members))]
    for style, (one, colour) in enumerate(
        zip(members, colours_of([one.group for one in members]), strict=True)
    ):
        means = _means_by_m(one)
        sizes |= {m for m, _ in means}
        marks = {"linestyle": LINES[style % len(LINES)], "marker": MARKERS[style % len(MARKERS)]}
        draw_line(axis, [(m * apart[style], mean) for m, mean in means], colour, one.group.label, **marks)
    use_m_axis(axis, sorted(sizes))
    start_at_zero(axis)
    axis.legend(loc="best", fontsize=9)


def _means_by_m(one: Measured) -> list[tuple[float, Estimate]]:
    values: dict[int, list[float]] = defaultdict(list)
    for rows in final_rises(one).values():
        for m, row in rows.items():
            values[m].append(row.loss)
    return [(m, mean) for m in sorted(values) if (mean := estimate(values[m])) is not None]
