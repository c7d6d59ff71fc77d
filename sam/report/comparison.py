"""All data of a comparison, read once: the runs, their conditions and the paper's cells that they repeat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sam.paper.cells import Cell, Match, read_cells
from sam.record.reader import Run, find_runs
from sam.report.equal_compute import ComputeFamily, build_compute_families
from sam.report.groups import Group, group_runs
from sam.report.paper_rows import PaperRow, compare_with_paper, match_paper
from sam.report.rho_sweeps import RhoSweep, build_rho_sweeps
from sam.report.table import SettingTable, build_setting_tables


@dataclass(frozen=True)
class Comparison:
    """Runs and everything that tables and pictures show about them.

    Attributes:
        runs: The runs, in the order in which they were found.
        groups: The conditions of the runs.
        cells: The paper's cells; empty if they could not be read.
        matches: The cells that each condition repeats, by `Group.key`.
        warnings: One line about each thing that is left out.
    """

    runs: Sequence[Run]
    groups: Sequence[Group]
    cells: Sequence[Cell]
    matches: Mapping[tuple[str, str], Sequence[Match]]
    warnings: Sequence[str]

    @cached_property
    def setting_tables(self) -> list[SettingTable]:
        """SGD and SAM compared: one table for each setting."""
        return build_setting_tables(self.groups, self.matches)

    @cached_property
    def paper_rows(self) -> list[PaperRow]:
        """Our numbers next to the paper's, cell by cell."""
        return compare_with_paper(self.groups, self.matches, self.cells)

    @cached_property
    def compute_families(self) -> list[ComputeFamily]:
        """Conditions that can be compared at equal compute."""
        return build_compute_families(self.groups)

    @cached_property
    def rho_sweeps(self) -> list[RhoSweep]:
        """The errors for each rho."""
        return build_rho_sweeps(self.groups)

    @property
    def interrupted(self) -> list[Run]:
        """The runs that have not ended."""
        return [run for run in self.runs if run.result is None]


def read_comparison(roots: Sequence[Path], cells_file: Path) -> Comparison:
    """Read all runs below some folders and find the paper's cells that they repeat.

    Args:
        roots: Folders that hold run directories, at any depth.
        cells_file: The paper's conditions, results/paper/cells.csv; if it is broken, this only warns.

    Raises:
        ValueError: If a folder is missing, or if no folder holds a readable run.
    """
    for root in roots:
        if not root.is_dir():
            raise ValueError(
                f"no folder {root.absolute()}; name the folder that holds your runs, "
                "or train one first: python train.py"
            )
    runs, problems = find_runs(roots)
    faults = [f"{problem.path}: {problem.reason}" for problem in problems]
    if not runs:
        names = ", ".join(str(root.absolute()) for root in roots)
        found = "".join(f"; {line}" for line in faults)
        raise ValueError(
            f"no readable run (a folder with config.yaml) in {names}{found}; train one first: python train.py"
        )
    groups, copies = group_runs(runs)
    cells, missing = _read_cells(cells_file)
    return Comparison(runs, groups, cells, match_paper(groups, runs, cells), [*faults, *copies, *missing])


def _read_cells(path: Path) -> tuple[list[Cell], list[str]]:
    try:
        return read_cells(path), []
    except (OSError, ValueError) as error:
        return [], [f"the paper's numbers are not shown: {error}"]
