"""Relative error reduction from SGD to SAM, for the paper's conditions and for ours (Figure 1 left)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sam.figures.error_panels import SMALL, add_caption, final_error, panels_of, range_text
from sam.figures.style import DOTS_PER_INCH, SAM_COLOUR
from sam.paper.cells import Cell, Match, Printed
from sam.report.families import sgd_of
from sam.report.groups import Group
from sam.report.interval import Estimate, estimate
from sam.report.paper_rows import PaperRow, compare_with_paper
from sam.report.settings import without

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SECTIONS = ("CIFAR-10", "CIFAR-100", "ImageNet", "Finetuning", "SVHN, F-MNIST", "Noisy CIFAR", "Other")
BY_DATASET = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet": "ImageNet",
    "svhn": "SVHN, F-MNIST",
    "fashion_mnist": "SVHN, F-MNIST",
}
MIN_PLACES = 6
STEP = 0.2  # horizontal distance between two dots of one kind and place, in places
PRINTED_COLOUR, OTHER_COLOUR = "#555555", "#E69F00"


class Kind(NamedTuple):
    """A kind of dots: text in the legend, marker, colour, and horizontal offset from other kinds."""

    label: str
    marker: str
    colour: str
    offset: float
    is_filled: bool = True


PRINTED = Kind("printed", "o", PRINTED_COLOUR, -0.2)
PRINTED_MIXUP = Kind("printed, from Mixup to SAM", "D", PRINTED_COLOUR, -0.2, is_filled=False)
MEASURED = Kind("measured", "s", SAM_COLOUR, 0.2)
MEASURED_OTHER = Kind("measured, condition not in the tables", "^", OTHER_COLOUR, 0.0)
KINDS = (PRINTED, PRINTED_MIXUP, MEASURED, MEASURED_OTHER)


class Dot(NamedTuple):
    """One relative error reduction.

    Attributes:
        section: One of SECTIONS.
        place: A name; dots of one section with the same place are next to each other.
        kind: One of KINDS.
        reduction: The reduction, in percent of SGD's error.
    """

    section: str
    place: str
    kind: Kind
    reduction: Estimate


def draw_relative_errors(
    groups: Sequence[Group], matches: Mapping[tuple[str, str], Sequence[Match]], cells: Sequence[Cell]
) -> Figure:
    """Draw the relative error reduction from SGD to SAM, printed and measured, one dot per condition.

    100 (err_sgd - err_sam) / err_sgd.

    Args:
        groups: Conditions; those without a complete run are skipped.
        matches: The return value of `match_paper`.
        cells: The paper's cells; those of Tables 1 to 5 are drawn.

    Returns:
        A figure with one panel, whose sections are the paper's.

    Raises:
        ValueError: If there are neither cells nor a setting with SGD and SAM.
    """
    dots = [*printed_dots(cells), *measured_dots(groups, matches, cells)]
    if not dots:
        raise ValueError(
            "there are neither the paper's cells nor a setting with complete runs of SGD and of SAM"
        )
    from matplotlib.figure import Figure

    figure = Figure((14, 6), DOTS_PER_INCH, layout="constrained")
    axis = figure.subplots()
    _draw_sections(axis, dots)
    axis.set_ylabel("Relative error reduction from SGD to SAM (%)")
    axis.grid(axis="y", alpha=0.3)
    axis.axhline(0, color="black", linewidth=1)
    axis.legend(loc="best", fontsize=SMALL)
    add_caption(figure, _sentences(dots))
    return figure


def reduction_of_printed(base: Printed, sam: Printed, num_seeds: int) -> Estimate:
    """Return the reduction, in percent, between two printed errors.

    R = 1 - s / b. By the delta method for independent errors,
    half-width = sqrt(h_s^2 + (s / b)^2 h_b^2) / b.

    Args:
        base: The printed error without SAM.
        sam: The printed error with SAM.
        num_seeds: Number of seeds of each error.
    """
    ratio = sam.error_pct / base.error_pct
    half_width = None
    if base.ci95_points is not None and sam.ci95_points is not None:
        half_width = 100 * math.hypot(sam.ci95_points, ratio * base.ci95_points) / base.error_pct
    return Estimate(100 * (1 - ratio), half_width, num_seeds)


def reduction_of_runs(base: Group, sam: Group) -> Estimate:
    """Return the reduction, in percent, between runs.

    Over the seeds that both have, R = 1 - mean(s) / mean(b). By the delta method for the ratio of paired
    means, the interval is that of the independent values R - (s_i - (1 - R) b_i) / mean(b). With fewer than
    two such seeds, it is the reduction between the means of all runs, without an interval.

    Args:
        base: The runs without SAM: at least one complete run, and an error above 0.
        sam: The runs with SAM: at least one complete run.
    """
    b, s = base.values("test_error_pct"), sam.values("test_error_pct")
    shared = sorted(b.keys() & s.keys())
    if len(shared) < 2:
        ratio = final_error(sam).mean / final_error(base).mean
        return Estimate(100 * (1 - ratio), None, min(len(b), len(s)))
    mean = sum(b[seed] for seed in shared) / len(shared)
    ratio = sum(s[seed] for seed in shared) / len(shared) / mean
    found = estimate([100 * (1 - ratio - (s[seed] - ratio * b[seed]) / mean) for seed in shared])
    assert found is not None, "there are two seeds"
    return found


def printed_dots(cells: Iterable[Cell]) -> list[Dot]:
    """Return the dots of Tables 1 to 5: from SGD to SAM, and for wrong labels also from Mixup to SAM."""
    by_name = {cell.name: cell for cell in cells if cell.table in "12345"}
    dots = []
    for cell in by_name.values():
        for partner, kind in (("sgd", PRINTED), ("mixup", PRINTED_MIXUP)):
            base = by_name.get(_partner(cell, partner))
            if cell.method == "sam" and base is not None:
                seeds = min(base.num_seeds, cell.num_seeds)
                reduction = reduction_of_printed(base.top1, cell.top1, seeds)
                dots.append(Dot(_section_of_cell(cell), cell.name, kind, reduction))
    return dots


def measured_dots(
    groups: Sequence[Group], matches: Mapping[tuple[str, str], Sequence[Match]], cells: Sequence[Cell]
) -> list[Dot]:
    """Return a dot for every SAM condition that has a partner without SAM.

    For a condition that repeats a cell of Tables 1 to 5, the partner repeats the same cell without SAM. For
    any other condition, the partner is the SGD condition of its setting.

    Args:
        groups: Conditions; those without a complete run are skipped.
        matches: The return value of `match_paper`.
        cells: The paper's cells.
    """
    dots: list[Dot] = []
    paired: set[tuple[str, str]] = set()
    rows = [row for row in compare_with_paper(groups, matches, cells) if row.cell.table in "12345"]
    for row in rows:
        base = _base_of(row, rows)
        if base is not None and final_error(base).mean > 0:
            reduction = reduction_of_runs(base, row.group)
            dots.append(Dot(_section_of_cell(row.cell), row.cell.name, MEASURED, reduction))
            paired.add(row.group.key)
    for panel in panels_of(groups):
        base = sgd_of(panel.groups)
        for group in panel.groups if base is not None and final_error(base).mean > 0 else ():
            if base is not None and group.is_sam and group.key not in paired:
                place = f"{panel.title} {group.label}"
                dots.append(Dot(_section_of(group), place, MEASURED_OTHER, reduction_of_runs(base, group)))
    return dots


def _base_of(row: PaperRow, rows: Iterable[PaperRow]) -> Group | None:
    """Return the partner of a SAM cell's runs; both agree in all keys that no cell decides."""
    if row.cell.method != "sam":
        return None
    for other in rows:
        if other.cell.name == _partner(row.cell, "sgd"):
            # SGD may have been trained for more epochs.
            free = list(other.cell.choices)
            if without(other.group.setting, free).key == without(row.group.setting, free).key:
                return other.group
    return None


def _partner(cell: Cell, method: str) -> str:
    """Return the name of the cell without SAM; for mixup, the augmentation in the name is mixup too."""
    *condition, augmentation, _ = cell.name.split("/")
    return "/".join([*condition, "mixup" if method == "mixup" else augmentation, method])


def _section_of_cell(cell: Cell) -> str:
    if cell.table in "34":
        return {"3": "Finetuning", "4": "Noisy CIFAR"}[cell.table]
    return BY_DATASET.get(str(cell.values["dataset.name"]), "Other")


def _section_of(group: Group) -> str:
    """Return the section of a condition that is in no table."""
    name, fields = str(group.config["dataset"]["name"]), group.setting.fields
    if fields.get("model.weights") is not None:
        return "Finetuning"
    if not group.setting.has_clean_labels:
        return "Noisy CIFAR" if name == "cifar10" else "Other"
    return BY_DATASET.get(name, "Other")


def _draw_sections(axis: Axes, dots: Sequence[Dot]) -> None:
    """Draw the dots by section and place; the kinds of one place are next to each other."""
    places: dict[str, dict[str, int]] = defaultdict(dict)
    for dot in dots:
        places[dot.section].setdefault(dot.place, len(places[dot.section]))
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    position = 0
    for section in filter(places.__contains__, SECTIONS):
        # A section with few dots still needs room for its name.
        starts[section], ends[section] = position, position + max(len(places[section]), MIN_PLACES)
        position = ends[section] + 1
    for kind in KINDS:
        found = [dot for dot in dots if dot.kind == kind]
        if found:
            # Several runs may repeat one cell.
            nth = [
                sum(other.place == dot.place for other in found[:position])
                for position, dot in enumerate(found)
            ]
            x = [
                starts[dot.section] + places[dot.section][dot.place] + 0.5 + kind.offset + STEP * before
                for dot, before in zip(found, nth, strict=True)
            ]
            _draw_dots(axis, kind, x, [dot.reduction for dot in found])
    for end in ends.values():
        if end + 1 < position:
            axis.axvline(end + 0.5, color="black", alpha=0.2, linewidth=1)
    axis.set_xticks([(starts[section] + ends[section]) / 2 for section in starts], list(starts))
    axis.tick_params(axis="x", length=0)
    axis.set_xlim(-0.5, position - 0.5)


def _draw_dots(axis: Axes, kind: Kind, x: Sequence[float], reductions: Sequence[Estimate]) -> None:
    axis.errorbar(
        x,
        [reduction.mean for reduction in reductions],
        [math.nan if reduction.half_width is None else reduction.half_width for reduction in reductions],
        linestyle="",
        marker=kind.marker,
        markersize=5,
        color=kind.colour,
        markerfacecolor=kind.colour if kind.is_filled else "white",
        elinewidth=1,
        label=kind.label,
    )


def _sentences(dots: Sequence[Dot]) -> list[str]:
    sentences = [
        "Bars: 95 % intervals. Printed: delta method for two independent errors; Table 4 prints no interval.",
    ]
    counts = [dot.reduction.num_values for dot in dots if dot.kind in (MEASURED, MEASURED_OTHER)]
    if counts:
        sentences.append(
            "Measured: delta method for the ratio of means over the seeds that both have (Student t, "
            f"{range_text(counts)}). scripts/compare.py lists how runs differ from the paper's conditions."
        )
    if any(dot.kind == PRINTED_MIXUP for dot in dots):
        sentences.append("For wrong labels, the paper's figure shows the reduction from Mixup, not from SGD.")
    return sentences
