"""Pictures of m-sharpness: the rise of the loss when m images share one perturbation."""

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import stdtrit

from sam.figures.analysis_frame import (
    marks,
    moment,
    new_figure,
    not_finite,
    sample,
    set_texts,
    start_at_zero,
    use_m_axis,
)
from sam.figures.error_panels import INTERVAL, colours_of, describe_panel, draw_line, make_panels, range_text
from sam.figures.style import PANEL_INCHES, shades
from sam.record.analyses import Analysis
from sam.report.groups import Group
from sam.report.interval import Estimate, estimate
from sam.report.measured import Rise, ball, by_setting, final_rises, gather, rises, steps_text
from sam.report.settings import setting_titles

# The rises of each seed of a condition, by m.
Seeds = dict[int, dict[int, Rise]]


def draw_sharpness(analysis: Analysis) -> Figure:
    """Draw the rise of loss and error against m, one line per number of ascent steps.

    Args:
        analysis: An analysis of the kind sharpness.

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
        bars = [_half_width(row) for row in line]
        looks = {"color": colour, "label": steps_text(steps), **marks(style)}
        loss_axis.errorbar(sizes, [row.loss for row in line], bars, capsize=3, **looks)
        error_axis.plot(sizes, [row.error_points for row in line], **looks)
    for axis, name in ((loss_axis, "Rise of the loss"), (error_axis, "Rise of the error (points)")):
        use_m_axis(axis, [row.m for row in rows])
        axis.set_ylabel(name)
        start_at_zero(axis)
    loss_axis.legend(loc="best")
    bars_text = "Bars: 95 % Student-t interval over the subsets of m images; the whole sample has none."
    sentences = [sample(analysis), f"Highest loss in {ball(analysis)}.", bars_text, not_finite([analysis])]
    set_texts(figure, f"m-sharpness: {moment(analysis)}", sentences)
    return figure


def sharpness_by_condition(groups: Sequence[Group]) -> Figure:
    """Draw the m-sharpness of the conditions of each setting after the last analysed epoch.

    Args:
        groups: Conditions; each setting with a sharpness analysis gets a panel, up to six.

    Raises:
        ValueError: If there is no sharpness analysis, or its files are broken.
    """
    panels = by_setting(gather(groups, "sharpness"))
    figure, axes = make_panels(len(panels))
    titles = setting_titles(members[0].group.setting for members in panels)
    steps_shown, counts = set(), []
    for axis, members in zip(axes, panels, strict=False):
        steps, found = final_rises(members)
        drawn = [(one.group, by_seed) for one, by_seed in zip(members, found, strict=True) if by_seed]
        _draw_conditions(axis, drawn)
        # Settings of the analyses are the same within a panel, but may differ between panels.
        y_label = f"Rise of the loss in {ball(members[0].analyses[0])}"
        describe_panel(axis, titles[members[0].group.setting.key], axis.get_xlabel(), y_label)
        steps_shown.add(steps)
        counts += [len(by_seed) for _, by_seed in drawn]
    samples = dict.fromkeys(sample(members[0].analyses[0]) for members in panels[: len(axes)])
    steps_texts = " or ".join(map(steps_text, sorted(steps_shown)))
    per_panel = ", the same within a panel" if len(steps_shown) > 1 else ""
    sentences = [f"After the last analysed epoch, with {steps_texts}{per_panel}.", *samples]
    sentences.append(f"{INTERVAL} ({range_text(counts)}).")
    shown = [one for members in panels[: len(axes)] for one in members]
    sentences.append(not_finite(analyses[-1] for one in shown for analyses in one.by_seed.values()))
    set_texts(figure, "m-sharpness of the trained networks", sentences, len(panels) - len(axes))
    return figure


def _half_width(row: Rise) -> float:
    """Return the half-width of the 95 % interval of a rise over its subsets; 0 for a single subset."""
    if row.standard_error is None or row.num_subsets < 2:
        return 0.0
    return float(stdtrit(row.num_subsets - 1, 0.975)) * row.standard_error


def _draw_conditions(axis: Axes, members: Sequence[tuple[Group, Seeds]]) -> None:
    sizes: set[float] = set()
    # The shift keeps the bars of one m from covering each other.
    apart = [2 ** (0.15 * (place - (len(members) - 1) / 2)) for place in range(len(members))]
    colours = colours_of([group for group, _ in members])
    for style, ((group, by_seed), colour) in enumerate(zip(members, colours, strict=True)):
        means = _means_by_m(by_seed)
        sizes |= {m for m, _ in means}
        draw_line(axis, [(m * apart[style], mean) for m, mean in means], colour, group.label, **marks(style))
    use_m_axis(axis, sorted(sizes))
    start_at_zero(axis)
    axis.legend(loc="best", fontsize=9)


def _means_by_m(by_seed: Seeds) -> list[tuple[float, Estimate]]:
    values: dict[int, list[float]] = defaultdict(list)
    for rows in by_seed.values():
        for m, row in rows.items():
            values[m].append(row.loss)
    return [(m, mean) for m in sorted(values) if (mean := estimate(values[m])) is not None]
