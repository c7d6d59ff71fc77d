"""Pictures of Hessian spectra (Foret et al. 2021, Figure 3 left)."""

import csv
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sam.figures.analysis_frame import moment, new_figure, sample, seeds, set_texts
from sam.figures.density import Array, density_grid, kernel_width, spectral_density
from sam.figures.error_panels import colours_of
from sam.figures.style import PANEL_INCHES, SAM_COLOUR
from sam.paper.cells import CELLS
from sam.record.analyses import Analysis, read_arrays
from sam.record.values import number
from sam.report.groups import Group
from sam.report.measured import Measured, gather, largest_comparison, value_of, values_of_list

# The dataset and the network for which the paper prints numbers.
PAPERS = ("cifar10", "wrn_40_10_nobn")
MAX_ROWS = 4
MAX_COLUMNS = 4


def draw_spectrum(analysis: Analysis) -> Figure:
    """Draw the spectral density of one Hessian, and its largest eigenvalues.

    Args:
        analysis: An analysis of the kind hessian.

    Raises:
        ValueError: If its files are broken.
    """
    nodes, _ = read_arrays(analysis, "nodes", "weights")
    figure = new_figure(PANEL_INCHES[0], PANEL_INCHES[1] + 0.4)
    axis = figure.add_subplot()
    grid, sigma = _shared_grid([analysis])
    height = _draw_density(axis, analysis, grid, sigma, SAM_COLOUR)
    axis.set_ylim(_floor(analysis, sigma), 3 * height)
    axis.set_xlabel("Eigenvalue of the Hessian")
    axis.set_ylabel("Density")
    lines = [*_lambdas(analysis), _trace(analysis)]
    _write(axis, "\n".join(lines))
    sentences = [
        sample(analysis),
        f"Stochastic Lanczos, {nodes.shape[0]} probes of {nodes.shape[1]} steps.",
        _smoothing(sigma),
    ]
    set_texts(figure, f"Hessian spectrum: {moment(analysis)}", sentences)
    return figure


def fig3_spectrum(groups: Sequence[Group]) -> Figure:
    """Draw spectra during training on shared axes: one row per epoch, one column per condition.

    The caption quotes the paper's numbers if network and dataset are those of its figure.

    Args:
        groups: Conditions; those of the setting with most spectra are drawn, one seed of each condition.

    Raises:
        ValueError: If there is no hessian analysis, or its files are broken.
    """
    columns = largest_comparison(gather(groups, "hessian"))[:MAX_COLUMNS]
    first = [next(iter(one.by_seed.values())) for one in columns]
    epochs = spread({analysis.epoch for analyses in first for analysis in analyses}, MAX_ROWS)
    shown = [analysis for analyses in first for analysis in analyses if analysis.epoch in epochs]
    grid, sigma = _shared_grid(shown)
    figure = new_figure(0.8 + 3.6 * len(columns), 1.3 + 2.0 * len(epochs))
    panels = figure.subplots(len(epochs), len(columns), sharex=True, sharey=True, squeeze=False)
    heights = []
    tints = colours_of([one.group for one in columns])
    for axes, epoch in zip(panels, epochs, strict=True):
        for axis, analyses, colour in zip(axes, first, tints, strict=True):
            at_epoch = [analysis for analysis in analyses if analysis.epoch == epoch]
            if not at_epoch:
                axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color="grey")
                continue
            heights.append(_draw_density(axis, at_epoch[-1], grid, sigma, colour))
            _write(axis, "\n".join(_lambdas(at_epoch[-1])))
        axes[0].set_ylabel(f"Epoch {epoch}\nDensity")
    for axis, one in zip(panels[0], columns, strict=True):
        axis.set_title(f"{one.group.label}, seed {next(iter(one.by_seed))}", fontsize=10)
    for axis in panels[-1]:
        axis.set_xlabel("Eigenvalue of the Hessian")
    panels[0][0].set_ylim(min(_floor(analysis, sigma) for analysis in shown), 3 * max(heights))
    sentences = [
        sample(shown[0]),
        f"One seed of each condition (analysed seeds: {seeds(columns)}).",
        _smoothing(sigma),
        _printed() if _networks(columns) == {PAPERS} else "",
    ]
    set_texts(figure, "Hessian spectra during training", sentences)
    return figure


def spread(epochs: set[int], most: int) -> list[int]:
    """Pick evenly spaced epochs, including the first and the last.

    Args:
        epochs: At least one epoch.
        most: Largest number of epochs to pick; at least 2.
    """
    ordered = sorted(epochs)
    if len(ordered) <= most:
        return ordered
    return [ordered[round(step * (len(ordered) - 1) / (most - 1))] for step in range(most)]


def _smoothing(sigma: float) -> str:
    return f"Smoothed with Gaussians of width {sigma:.2g}. Triangles: the largest eigenvalues."


def _networks(columns: Sequence[Measured]) -> set[tuple[str, str]]:
    configs = [one.group.config for one in columns]
    return {(config["dataset"]["name"], config["model"]["name"]) for config in configs}


def _printed() -> str:
    with CELLS.with_name("tables.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["table"] == "Fig3-left"]
    largest, ratios = (
        {(row["method"], row["epochs"]): row["value"] for row in rows if row["metric"] == metric}
        for metric in ("hessian_lambda_max", "hessian_lambda_max_over_lambda5")
    )
    texts = [
        rf"{method} epoch {epoch} $\lambda_{{max}}$ {largest[method, epoch]}, ratio {ratios[method, epoch]}"
        for method, epoch in largest
    ]
    return f"The paper prints: {'; '.join(texts)}."


def _shared_grid(analyses: Sequence[Analysis]) -> tuple[Array, float]:
    """Return the grid and the width of the Gaussians for spectra on shared axes."""
    nodes = [read_arrays(analysis, "nodes")[0] for analysis in analyses]
    lowest = min(float(some.min()) for some in nodes)
    highest = max(
        *(float(some.max()) for some in nodes), *(value_of(made, "lambda_max") for made in analyses)
    )
    sigma = kernel_width(lowest, highest)
    return density_grid(lowest, highest, sigma), sigma


def _draw_density(axis: Axes, analysis: Analysis, grid: Array, sigma: float, colour: str) -> float:
    """Draw a density and its largest eigenvalues; return the highest density."""
    nodes, weights = read_arrays(analysis, "nodes", "weights")
    density = spectral_density(nodes, weights, grid, sigma)
    axis.set_yscale("log")
    axis.plot(grid, density, color=colour, linewidth=1)
    eigenvalues = values_of_list(analysis, "eigenvalues")
    # In axes coordinates, so that the triangles are at the bottom of the panel for all densities.
    axis.plot(
        eigenvalues,
        [0.04] * len(eigenvalues),
        "^",
        transform=axis.get_xaxis_transform(),
        color="black",
        markerfacecolor=colour,
        markersize=6,
    )
    axis.grid(alpha=0.3)
    return float(density.max())


def _floor(analysis: Analysis, sigma: float) -> float:
    """Return a tenth of the height that one eigenvalue alone has in the density."""
    return 0.1 / (value_of(analysis, "num_parameters") * sigma * math.sqrt(2 * math.pi))


def _lambdas(analysis: Analysis) -> list[str]:
    lines = [rf"$\lambda_{{max}}$ = {value_of(analysis, 'lambda_max'):.3g}"]
    if (ratio := number(analysis.result.get("lambda_max_over_5"))) is not None:
        lines.append(rf"$\lambda_{{max}}/\lambda_5$ = {ratio:.3g}")
    return lines


def _trace(analysis: Analysis) -> str:
    trace = f"trace = {value_of(analysis, 'trace'):.4g}"
    if (error := number(analysis.result.get("trace_standard_error"))) is not None:
        trace += f" ± {error:.2g} (standard error)"
    return trace


def _write(axis: Axes, text: str) -> None:
    axis.text(
        0.97,
        0.93,
        text,
        transform=axis.transAxes,
        ha="right",
        va="top",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    )
