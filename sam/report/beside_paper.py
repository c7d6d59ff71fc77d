"""Which cells of the paper's tables our conditions repeat, and what their errors say of each other."""

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
# Of a run directory: outputs, dataset, model, augmentation, method, seed.
NUM_PATH_PARTS = 6
# Half a unit in the last place of a difference of two decimal numbers is no departure from an interval.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class PaperRow:
    """A cell beside the runs that repeat it, all with the same departures.

    Attributes:
        cell: The condition as printed.
        departures: How the runs differ from it.
        group: The runs; of several alternatives of the cell, those with the lowest mean test error.
        top1: Their test error, in percent.
        top5: The same with five guesses; None where the cell prints none or no run has the number.
        alternative: Which of the cell's alternatives they are; "" where they are none.
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
        """Inside whose interval the difference is."""
        return verdict(self.difference_points, self.cell.top1.ci95_points, self.top1)


def verdict(difference_points: float, printed_points: float | None, ours: Estimate) -> str:
    """Say whether a difference is inside the paper's interval and inside ours.

    It is inside an interval where its size is at most the half-width. Nothing is allowed for the rounding of
    the printed number.

    Args:
        difference_points: Our mean minus the printed number.
        printed_points: Half-width of the printed interval; None where none is printed.
        ours: Our mean with its interval.

    Returns:
        "too few seeds" below 3 of them; "inside ours" or "outside ours" where the paper prints no interval;
        else "inside both", "inside the paper's only", "inside ours only" or "outside both".
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

    A bootstrapped condition is told by the run that predicted its labels: one of those read, which may have
    been copied here from elsewhere, else the one that its config names; without it, it is no cell's.

    Args:
        groups: Conditions.
        runs: All runs read.
        cells: The paper's; none where they are not to be shown.

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
    """Lay out our conditions beside the paper's.

    Args:
        groups: Conditions; those without a complete run are passed over.
        matches: What `match_paper` found.
        cells: The paper's, in the order in which they are shown.

    Returns:
        One row per cell, departures, and whatever else no cell tells; the fewest departures first.
    """
    candidates: dict[tuple[object, ...], list[tuple[Match, Group]]] = defaultdict(list)
    for group in groups:
        for match in matches.get(group.key, ()) if group.complete else ():
            candidates[_row_key(match, group)].append((match, group))
    rows = [_make_row(found) for found in candidates.values()]
    order = {cell.name: position for position, cell in enumerate(cells)}
    return sorted(rows, key=lambda row: (order[row.cell.name], len(row.departures)))


def _row_key(match: Match, group: Group) -> tuple[object, ...]:
    # Each alternative has its own source of labels.
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
