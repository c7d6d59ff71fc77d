"""Cosine between SAM's gradients without and with the second-order term (Foret et al. 2021, Figure 5)."""

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.figure import Figure

from sam.figures.analysis_frame import marks, moment, new_figure, not_finite, seeds, set_texts
from sam.figures.epochs import curve_of, draw_curve, use_whole_epochs
from sam.figures.error_panels import colours_of, describe_panel
from sam.figures.style import PANEL_INCHES, SAM_COLOUR
from sam.record.analyses import Analysis
from sam.report.groups import Group
from sam.report.measured import Measured, gather, largest_comparison, value_of, values_of_list

COMPARED = (
    "Cosine between the gradients of SAM with and without the second-order term, on the same training "
    "batches and with the run's rho."
)


def draw_second_order(analysis: Analysis) -> Figure:
    """Draw the cosine of each batch, and the mean.

    Args:
        analysis: An analysis of the kind second_order.

    Raises:
        ValueError: If its file is broken.
    """
    cosines = values_of_list(analysis, "cosines")
    mean = value_of(analysis, "mean")
    figure = new_figure(*PANEL_INCHES)
    axis = figure.add_subplot()
    axis.plot(range(1, len(cosines) + 1), cosines, "o", color=SAM_COLOUR, label="one batch")
    axis.axhline(mean, color="black", linewidth=1, linestyle="--", label=f"mean {mean:.4f}")
    axis.set_xlabel("Batch")
    axis.set_xlim(0.5, len(cosines) + 0.5)
    axis.set_ylabel("Cosine")
    axis.ticklabel_format(axis="y", useOffset=False)
    axis.grid(alpha=0.3)
    axis.legend(loc="best")
    set_texts(figure, f"First- and second-order SAM: {moment(analysis)}", [COMPARED, not_finite([analysis])])
    return figure


def fig5(groups: Sequence[Group]) -> Figure:
    """Draw the cosine between first- and second-order gradients during the training of each condition.

    Args:
        groups: Conditions; those of the setting with most second_order analyses are drawn.

    Raises:
        ValueError: If there is no second_order analysis, or its files are broken.
    """
    members = largest_comparison(gather(groups, "second_order"))
    figure = new_figure(PANEL_INCHES[0], PANEL_INCHES[1] + 0.5)
    axis = figure.add_subplot()
    tints = colours_of([one.group for one in members])
    for style, (one, colour) in enumerate(zip(members, tints, strict=True)):
        label = f"trained with {one.group.label}"
        draw_curve(axis, curve_of(_by_epoch(one)), colour, label, **marks(style), markersize=5)
    use_whole_epochs(axis, [epoch for one in members for epoch in one.epochs])
    describe_panel(axis, "", "Epoch", "Cosine between the two gradients")
    axis.ticklabel_format(axis="y", useOffset=False)
    axis.legend(loc="best", fontsize=9)
    sentences = [
        COMPARED,
        f"Line: mean over seeds ({seeds(members)}). Band: lowest to highest seed.",
        not_finite(analysis for one in members for analysis in one.analyses),
    ]
    set_texts(figure, "First- and second-order SAM during training", sentences)
    return figure


def _by_epoch(one: Measured) -> dict[int, list[float]]:
    values: dict[int, list[float]] = defaultdict(list)
    for analysis in one.analyses:
        values[analysis.epoch].append(value_of(analysis, "mean"))
    return values
