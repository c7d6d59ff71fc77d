"""Finds the cells of the paper's tables that our conditions repeat, and compares their errors."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam.paper.cells import Cell, Departure, Match, closest_cells
from sam.record.reader import Run, read_config
from sam.record.values import values_of
from sam.report.groups import Group
from sam.report.interval import Estimate, estimate
from sam.report.settings import without

MIN_SEEDS = 3
# The last parts of a run directory's path: outputs, dataset, model, augmentation, method, seed.
NUM_PATH_PARTS = 6
# The rounding error of a difference of two decimal numbers must not count as outside an interval.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class PaperRow:
    """A cell of the paper with the runs that repeat it, all with the same departures from it.

    Attributes:
        cell: The condition as printed.
        departures: How the runs differ from the cell.
        group: The runs; if the cell has alternatives, those of the one with the lowest mean test error.
        top1: Top-1 test error of the runs, in percent.
        top5: Top-5 test error of the runs, in percent; None if the cell prints none or no run has the number.
        alternative: The alternative of the cell that the runs belong to; "" if the cell has no alternatives.
        not_run: Alternatives without a complete run with these departures.
    """

    cell: Cell
    departures: tuple[Departure, ...]
    group: Group
    top1: Estimate
    top5: Estimate | None
    alternative: str
    not_run: tuple[str, ...]

    @property
    def difference_points(self) -> float:
        """Our mean minus the printed number."""
        return self.top1.mean - self.cell.top1.error_pct

    @property
    def verdict(self) -> str:
        """Whether the difference is inside the paper's interval and inside ours."""
        return verdict(self.difference_points, self.cell.top1.ci95_points, self.top1)


def verdict(difference_points: float, printed_points: float | None, ours: Estimate) -> str:
    """Say whether a difference is inside the paper's interval and inside ours.

    A difference is inside an interval if its absolute value is at most the half-width. There is no allowance
    for the rounding of the printed number.

    Args:
        difference_points: Our mean minus the printed number, in percentage points.
        printed_points: Half-width of the printed interval, in percentage points; None if none is printed.
        ours: Our mean with its interval.

    Returns:
        "too few seeds" for fewer than 3 seeds; "inside ours" or "outside ours" if the paper prints no
        interval; else "inside both", "inside the paper's only", "inside ours only" or "outside both".
    """
    if ours.half_width is None or ours.num_values < MIN_SEEDS:
        return "too few seeds"
    size = abs(difference_points) - TOLERANCE
    inside_ours = size <= ours.half_width
    if printed_points is None:
        return "inside ours" if inside_ours else "outside ours"
    if size <= printed_points:
        return "inside both" if inside_ours else "inside the paper's only"
    return "inside ours only" if inside_ours else "outside both"


def match_paper(
    groups: Iterable[Group], runs: Sequence[Run], cells: Sequence[Cell]
) -> dict[tuple[str, str], list[Match]]:
    """Find the cells that each condition repeats most closely.

    A bootstrapped condition depends on the run that predicted its labels. This run is searched among `runs`,
    where it may be a copy from another machine, and then at the path in the config. A condition whose run is
    not found matches no cell.

    Args:
        groups: Conditions.
        runs: All runs that were read.
        cells: The paper's cells; empty if they are not shown.

    Returns:
        The matches by `Group.key`, as `closest_cells` returns them.
    """
    configs = {_path_end(run.directory): run.config for run in reversed(runs)}
    return {
        group.key: closest_cells(group.config, cells, _labels_from(group.config, configs)) for group in groups
    }


def compare_with_paper(
    groups: Iterable[Group], matches: Mapping[tuple[str, str], Sequence[Match]], cells: Sequence[Cell]
) -> list[PaperRow]:
    """Return the paper's cells with our conditions next to them.

    Args:
        groups: Conditions; those without a complete run are skipped.
        matches: The return value of `match_paper`.
        cells: The paper's cells, in the order of the rows.

    Returns:
        One row for each cell and each set of runs that agree in their departures and in all keys that no cell
        decides. The rows of one cell start with the fewest departures.
    """
    candidates: dict[tuple[object, ...], list[tuple[Match, Group]]] = defaultdict(list)
    for group in groups:
        for match in matches.get(group.key, ()) if group.complete else ():
            candidates[_row_key(match, group)].append((match, group))
    rows = [_make_row(found) for found in candidates.values()]
    order = {cell.name: position for position, cell in enumerate(cells)}
    return sorted(rows, key=lambda row: (order[row.cell.name], len(row.departures)))


def _row_key(match: Match, group: Group) -> tuple[object, ...]:
    # Each alternative of a bootstrapped cell gets its labels from another run.
    shared = without(group.setting, [*match.cell.choices, "dataset.relabel_from"])
    return match.cell.name, tuple(map(str, match.departures)), shared.key, group.label


def _make_row(candidates: Sequence[tuple[Match, Group]]) -> PaperRow:
    match = candidates[0][0]
    by_alternative = {match.cell.alternative_of(values_of(group.config)): group for _, group in candidates}
    alternative, group = min(by_alternative.items(), key=lambda item: _mean_error(item[1]).mean)
    return PaperRow(
        cell=match.cell,
        departures=match.departures,
        group=group,
        top1=_mean_error(group),
        top5=estimate(list(group.values("test_top5_error_pct").values())) if match.cell.top5 else None,
        alternative=alternative,
        not_run=tuple(text for text in match.cell.alternatives if alternative and text not in by_alternative),
    )


def _mean_error(group: Group) -> Estimate:
    mean = estimate(list(group.values("test_error_pct").values()))
    assert mean is not None, "a complete run has a test error"
    return mean


def _labels_from(
    config: Mapping[str, Any], configs: Mapping[tuple[str, ...], Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    source = values_of(config)["dataset.relabel_from"]
    if source is None:
        return None
    directory = Path(os.path.expanduser(str(source)))
    if (found := configs.get(_path_end(directory))) is not None:
        return found
    try:
        return read_config(directory)
    except (OSError, ValueError):
        return None


def _path_end(directory: Path) -> tuple[str, ...]:
    return Path(os.path.abspath(directory)).parts[-NUM_PATH_PARTS:]
