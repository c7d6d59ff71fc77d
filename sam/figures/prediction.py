"""How well m-sharpness predicts the generalisation gap (Foret et al. 2021, Figure 3 right)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sam.figures.analysis_frame import ball, new_figure, sample, set_texts, use_m_axis
from sam.figures.style import SAM_COLOUR, SGD_COLOUR
from sam.report.groups import Group
from sam.report.population import Population, populations
from sam.report.prediction import chance_level, conditional_score, rank_correlation

MAX_ROWS = 3
# A wider range of sharpness is drawn on a logarithmic axis.
WIDE = 30
GAP_LABELS = {
    "error": "Test error minus training error (points)",
    "loss": "Test loss minus training loss",
    "test_error": "Test error (%)",
}


def fig3_predictive(groups: Sequence[Group], gap: str = "error", m: int | None = None) -> Figure:
    """Draw score and rank correlation of m-sharpness against m, and sharpness beside gap; a row per dataset.

    Args:
        groups: All conditions of the population; each of their seeds is a run of it.
        gap: What is to be predicted, as in `generalisation_gap`.
        m: Of the sharpness in the right panel; None takes the smallest.

    Raises:
        ValueError: If no dataset has four runs with a sharpness analysis and a gap, there is no such m, or
            the files are broken.
    """
    found = populations(groups, gap)
    rows = found[:MAX_ROWS]
    figure = new_figure(15.0, 0.9 + 4.2 * len(rows))
    panels = figure.subplots(len(rows), 3, squeeze=False)
    for (score, tau, scatter), population in zip(panels, rows, strict=True):
        _draw_score(score, population)
        _draw_correlation(tau, population)
        _draw_scatter(scatter, population, gap, m)
    sentences = [
        *dict.fromkeys(f"{sample(one.first)} Highest loss in a {ball(one.first)}." for one in rows),
        "Left: how much of the order of two gaps the order of their sharpness tells, as a share of its "
        "entropy (Jiang et al. 2020), and the least when one or two hyperparameters are given. Grey: 95 % of "
        "shuffled measures.",
        "Middle: Kendall's tau-b with a 95 % bootstrap interval over conditions.",
        f"Runs: {', '.join(f'{len(one.gaps)} in {len(set(one.conditions))} conditions' for one in rows)}.",
    ]
    set_texts(figure, "How m-sharpness predicts generalisation", sentences, len(found) - len(rows))
    return figure


def _draw_score(axis: Axes, population: Population) -> None:
    sizes = list(population.sharpness)
    gaps, differing = population.gaps, population.hyperparameters
    scores = [conditional_score(measures, gaps, differing) for measures in population.sharpness.values()]
    # The same for every m, since a measure counts by its order alone.
    chance = chance_level(population.sharpness[sizes[0]], gaps, differing)
    axis.axhspan(0, chance or 0, color="black", alpha=0.12, linewidth=0, label="chance (95 %)")
    free = [np.nan if score is None else score.unconditioned for score in scores]
    least = [np.nan if score is None else score.value for score in scores]
    axis.plot(sizes, free, "--s", color="black", markerfacecolor="white", label="no hyperparameter given")
    axis.plot(sizes, least, "-o", color=SAM_COLOUR, label="least, up to two given")
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


def _draw_scatter(axis: Axes, population: Population, gap: str, asked: int | None) -> None:
    sizes = list(population.sharpness)
    m = asked or sizes[0]
    if m not in sizes:
        raise ValueError(f"m={m} was not measured in all runs; there are {', '.join(map(str, sizes))}")
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
    axis.set_ylabel(GAP_LABELS[gap])
    axis.grid(alpha=0.3)
    axis.legend(loc="best", fontsize=9)
