"""How well m-sharpness predicts the generalisation gap (Foret et al. 2021, Figure 3 right)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sam.figures.analysis_frame import new_figure, sample, set_texts, use_m_axis
from sam.figures.population import Population, populations
from sam.figures.predictive_power import chance_level, conditional_score, rank_correlation
from sam.figures.style import SAM_COLOUR, SGD_COLOUR
from sam.report.groups import Group
from sam.report.measured import ball, steps_text

MAX_ROWS = 3
# A wider range of sharpness is drawn on a logarithmic axis.
WIDE = 30


def fig3_predictive(groups: Sequence[Group]) -> Figure:
    """Draw score and rank correlation of m-sharpness against m, and gap against sharpness; a row per dataset.

    Args:
        groups: All conditions of the population; each of their seeds is a run of it.

    Raises:
        ValueError: If no dataset has four runs with a sharpness analysis and a gap, or the files are broken.
    """
    found = populations(groups)
    rows = found[:MAX_ROWS]
    figure = new_figure(15.0, 0.9 + 4.2 * len(rows))
    panels = figure.subplots(len(rows), 3, squeeze=False)
    for (score, tau, scatter), population in zip(panels, rows, strict=True):
        _draw_score(score, population)
        _draw_correlation(tau, population)
        _draw_scatter(scatter, population)
    sentences = [
        *dict.fromkeys(
            f"{sample(one.first)} Highest loss in {ball(one.first)}, {steps_text(one.ascent_steps)}."
            for one in rows
        ),
        "Left: mutual information between the order of two gaps and the order of their sharpness, as a share "
        "of the entropy of the former (Jiang et al. 2020); solid: the minimum, given up to two "
        "hyperparameters. Grey: 95 % quantile for measures shuffled by condition, as a band for the solid "
        "line and as dots for the dashed line.",
        "Middle: Kendall's tau-b with a 95 % bootstrap interval over conditions.",
        "For runs with noisy labels, the test error is the expected error against equally noisy test labels."
        if any(one.has_noise for one in rows)
        else "",
        f"Runs: {', '.join(f'{len(one.gaps)} in {len(set(one.conditions))} conditions' for one in rows)}.",
    ]
    set_texts(figure, "How m-sharpness predicts generalisation", sentences, len(found) - len(rows))
    return figure


def _draw_score(axis: Axes, population: Population) -> None:
    sizes = list(population.sharpness)
    gaps, differing = population.gaps, population.hyperparameters
    scores = [conditional_score(measures, gaps, differing) for measures in population.sharpness.values()]
    chances = [
        chance_level(measures, gaps, differing, population.conditions)
        for measures in population.sharpness.values()
    ]
    band = [np.nan if chance is None else chance.value for chance in chances]
    dots = [np.nan if chance is None else chance.unconditioned for chance in chances]
    axis.fill_between(sizes, 0, band, color="black", alpha=0.12, linewidth=0, label="chance (95 %)")
    axis.plot(sizes, dots, ":", color="grey", label="chance, no hyperparameter given")
    free = [np.nan if score is None else score.unconditioned for score in scores]
    least = [np.nan if score is None else score.value for score in scores]
    axis.plot(sizes, free, "--s", color="black", markerfacecolor="white", label="no hyperparameter given")
    axis.plot(sizes, least, "-o", color=SAM_COLOUR, label="minimum, up to two given")
    use_m_axis(axis, sizes)
    axis.set_ylabel("Normalised mutual information")
    axis.set_ylim(bottom=0)
    axis.set_title(population.dataset, fontsize=10)
    axis.legend(loc="best", fontsize=9)


def _draw_correlation(axis: Axes, population: Population) -> None:
    sizes = list(population.sharpness)
    for m, measures in population.sharpness.items():
        found = rank_correlation(measures, population.gaps, population.conditions)
        if found is None:
            continue
        low, high = found.interval or (found.tau, found.tau)
        axis.vlines(m, low, high, color=SAM_COLOUR)
        axis.plot([m], [found.tau], "o", color=SAM_COLOUR)
    axis.axhline(0, color="black", linewidth=1)
    use_m_axis(axis, sizes)
    axis.set_ylim(-1.05, 1.05)
    axis.set_ylabel("Kendall's tau-b")


def _draw_scatter(axis: Axes, population: Population) -> None:
    m = min(population.sharpness)
    for is_sam, colour, marker, label in ((False, SGD_COLOUR, "o", "SGD"), (True, SAM_COLOUR, "^", "SAM")):
        dots = [
            (sharpness, value)
            for sharpness, value, sam in zip(
                population.sharpness[m], population.gaps, population.is_sam, strict=True
            )
            if sam == is_sam
        ]
        if dots:
            axis.plot(*zip(*dots, strict=True), marker, color=colour, alpha=0.8, label=label)
    lowest, highest = min(population.sharpness[m]), max(population.sharpness[m])
    if lowest > 0 and highest > WIDE * lowest:
        axis.set_xscale("log")
    axis.set_xlabel(f"Rise of the loss, m = {m}")
    axis.set_ylabel("Test error minus training error (points)")
    axis.grid(alpha=0.3)
    axis.legend(loc="best", fontsize=9)
