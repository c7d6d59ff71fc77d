"""The sections that look at all settings at once: beside the paper, at equal compute, over rho."""

from collections.abc import Sequence

from sam.report.beside_paper import PaperRow
from sam.report.equal_compute import ComputeFamily
from sam.report.markup import escape, render_list, render_table
from sam.report.rho_sweeps import RhoSweep
from sam.report.text_tables import (
    advice,
    beside_paper_table,
    compute_table,
    held_out,
    missing_baselines,
    sweep_table,
)

BESIDE_NOTE = """\
Ours: mean ± half-width of the 95 % Student-t interval over n seeds, after the last epoch. Difference:
ours minus the paper's, in points. Verdict: the difference is inside an interval if its size is at
most the half-width. The paper's half-width counts as printed (<0.1 as 0.1), with no allowance for the
rounding of its numbers; where it prints none, ours decides alone; below 3 seeds nothing is said.
Inside is not the same as equal: a wide interval has room for much.

Runs that depart in nothing stand beside every cell that they repeat, others beside the one from which
they depart least. A departure is written as ours (the cell's). results/paper/cells.csv says of each
value whether the paper prints it, the released code has it, or it is assumed."""
COMPUTE_NOTE = """\
Passes: forward-backward passes per training image in all, as counted by the runs. The difference is
to the SGD runs whose passes are equal within 2 %, with its paired 95 % interval over the seeds that
both have (at least two). Equal passes are not equal seconds, which are for whatever machine ran it."""
RHO_NOTE = """\
Selected: the lowest mean validation error, where two or more rhos have one; else the lowest mean test
error, which is then optimistic, since it was selected on that very error."""


def render_beside_paper(rows: Sequence[PaperRow]) -> str:
    """Write our numbers beside the paper's; "" for none.

    Args:
        rows: Cells with the runs that repeat them.
    """
    if not rows:
        return ""
    table, notes = beside_paper_table(rows)
    parts = ["## Beside the paper", render_table(*table)]
    if notes:
        parts += ["Notes:", render_list(notes, numbered=True)]
    return "\n\n".join([*parts, BESIDE_NOTE])


def render_families(families: Sequence[ComputeFamily]) -> str:
    """Write what can be compared at equal compute; "" for nothing.

    Args:
        families: Conditions that differ in method and epochs.
    """
    parts = ["## At equal compute"]
    for family in families:
        table = render_table(*compute_table(family))
        parts += [f"### {escape(family.title)}", table, render_list(missing_baselines(family))]
    return "\n\n".join(filter(None, [*parts, COMPUTE_NOTE])) if families else ""


def render_sweeps(sweeps: Sequence[RhoSweep]) -> str:
    """Write what each rho reached, and which one is selected; "" for no sweep.

    Args:
        sweeps: One method in one setting each.
    """
    parts = ["## Choice of rho"]
    for sweep in sweeps:
        title = f"### {escape(sweep.method)}: {escape(sweep.title)}"
        parts += [title, held_out(sweep), render_table(*sweep_table(sweep)), advice(sweep)]
    return "\n\n".join(filter(None, [*parts, RHO_NOTE])) if sweeps else ""
