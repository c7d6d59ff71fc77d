"""Reliability diagram: the difference between the accuracy of a network and its confidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from sam.figures.error_panels import (
    SMALL,
    ErrorPanel,
    add_caption,
    colours_of,
    describe_panel,
    make_panels,
    panels_of,
    range_text,
)
from sam.record.evaluations import Bin, Calibration, read_calibration
from sam.report.groups import Group
from sam.report.interval import estimate
from sam.report.markup import format_estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_BINS = 15
MIN_IMAGES = 10  # per bin, over all seeds; the accuracy of fewer images is mostly noise
LARGEST_MARK = 160  # area of the mark for a bin with all images, in square points


class Reliability(NamedTuple):
    """One bin of confidence, over the seeds of a condition that have images in it.

    Attributes:
        confidence_pct: Mean confidence.
        gap_points: Accuracy minus confidence, mean over the seeds.
        lowest, highest: The smallest and the largest accuracy minus confidence of a seed.
        share: Share of the images, 0 to 1, mean over all seeds.
    """

    confidence_pct: float
    gap_points: float
    lowest: float
    highest: float
    share: float


def draw_calibration(groups: Sequence[Group]) -> Figure:
    """Draw accuracy minus confidence against confidence: one line per condition, one panel per setting.

    Args:
        groups: Conditions; this reads evaluation-<split>.json of their runs.

    Returns:
        A figure with at most 6 panels.

    Raises:
        ValueError: If no complete run has been evaluated.
    """
    panels = [(panel, _calibrations(panel)) for panel in panels_of(groups)]
    panels = [(panel, found) for panel, found in panels if found]
    if not panels:
        raise ValueError(
            "no complete run has an evaluation-test.json with calibration_bins from after its last epoch; "
            "evaluate runs first: "
            "python evaluate.py run=FOLDER"
        )
    figure, axes = make_panels(len(panels))
    for axis, (panel, found) in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, found)
    counts = [len(calibrations) for _, found in panels[: len(axes)] for calibrations in found.values()]
    sentences = [
        f"{NUM_BINS} equal bins of confidence. Line: mean over seeds ({range_text(counts)}). "
        "Band: lowest to highest seed. Area of a mark: share of the images.",
        f"Bins with fewer than {MIN_IMAGES} images over all seeds are left out. Below 0: overconfident.",
        "Legend: expected calibration error with its 95 % Student-t interval.",
    ]
    add_caption(figure, sentences, len(panels) - len(axes))
    return figure


def reliability(calibrations: Sequence[Calibration]) -> list[Reliability]:
    """Combine the bins of several runs.

    Args:
        calibrations: One calibration per run.

    Returns:
        The bins with at least 10 images over all runs, sorted by confidence.
    """
    by_bin: dict[int, list[tuple[Bin, int]]] = defaultdict(list)
    for calibration in calibrations:
        num_images = sum(entry.num_images for entry in calibration.bins)
        for entry in calibration.bins:
            position = min(int(entry.confidence_pct * NUM_BINS / 100), NUM_BINS - 1)
            by_bin[position].append((entry, num_images))
    found = []
    for position in sorted(by_bin):
        if sum(entry.num_images for entry, _ in by_bin[position]) < MIN_IMAGES:
            continue
        gaps = [entry.accuracy_pct - entry.confidence_pct for entry, _ in by_bin[position]]
        confidence = fmean(entry.confidence_pct for entry, _ in by_bin[position])
        share = sum(entry.num_images / total for entry, total in by_bin[position]) / len(calibrations)
        found.append(Reliability(confidence, fmean(gaps), min(gaps), max(gaps), share))
    return found


def _calibrations(panel: ErrorPanel) -> dict[tuple[str, str], list[Calibration]]:
    """Return the calibrations of each condition's runs, by the condition's key; none for no calibrations."""
    found = {}
    for group in panel.groups:
        read = [read_calibration(run.directory, panel.split, run.config["epochs"]) for run in group.complete]
        found[group.key] = [calibration for calibration in read if calibration is not None]
    return {key: calibrations for key, calibrations in found.items() if calibrations}


def _draw_panel(axis: Axes, panel: ErrorPanel, found: dict[tuple[str, str], list[Calibration]]) -> None:
    groups = [group for group in panel.groups if group.key in found]
    for group, colour in zip(groups, colours_of(groups), strict=True):
        calibrations = found[group.key]
        bins = reliability(calibrations)
        confidences = [entry.confidence_pct for entry in bins]
        error = estimate([calibration.error_pct for calibration in calibrations])
        label = f"{group.label}: {format_estimate(error, len(calibrations))} (n = {len(calibrations)})"
        axis.plot(confidences, [entry.gap_points for entry in bins], color=colour, label=label)
        lowest, highest = [entry.lowest for entry in bins], [entry.highest for entry in bins]
        axis.fill_between(confidences, lowest, highest, color=colour, alpha=0.15, linewidth=0)
        areas = [LARGEST_MARK * entry.share for entry in bins]
        axis.scatter(confidences, [entry.gap_points for entry in bins], areas, color=colour, zorder=3)
    axis.axhline(0, color="black", linewidth=1)
    axis.set_xlim(0, 100)
    describe_panel(axis, panel.title, "Confidence (%)", "Accuracy minus confidence (points)")
    title = f"Calibration error on the {panel.split} images (%)"
    axis.legend(fontsize=SMALL, title=title, title_fontsize=SMALL)
