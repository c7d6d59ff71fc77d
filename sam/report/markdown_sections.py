"""The Markdown sections over all settings: the paper's numbers, equal compute, choice of rho."""

from collections.abc import Sequence

from sam.report.equal_compute import ComputeFamily
from sam.report.markup import escape, render_list, render_table
from sam.report.paper_rows import PaperRow
from sam.report.rho_sweeps import RhoSweep
from sam.report.text_tables import (
    advice,
    compute_table,
    held_out,
    missing_baselines,
    paper_rows_table,
    sweep_table,
    unpaired_seeds,
)

PAPER_NOTE = """\
Ours: mean ± half-width of the 95 % Student-t interval over n seeds, after the last epoch. Difference:
our number minus the paper's, in percentage points. Verdict: the difference is inside an interval if
its absolute value is at most the half-width. The paper's half-width is used as printed (<0.1 as 0.1),
with no allowance for rounding. If the paper prints no interval, only ours counts. With fewer than 3
seeds there is no verdict. Inside does not mean equal: a wide interval allows large differences.

Runs without departures are shown at every cell that they repeat. Other runs are shown at the cell
with the fewest departures. A departure is written as our value (the cell's value).
results/paper/cells.csv states for each value whether it is from the paper, from the released code,
or assumed."""
COMPUTE_NOTE = """\
Passes: total number of forward-backward passes per training image, as counted by the runs. The
difference is taken to the SGD runs with the same number of passes (within 2 %). Its 95 % interval is
paired: it uses the seeds that both have, at least two. p means the same as at equal epochs.
Equal passes do not mean equal seconds: seconds depend on the machine of each run."""
RHO_NOTE = """\
Selected: the rho with the lowest mean validation error, if two or more values of rho have one. Else
the rho with the lowest mean test error; this error is optimistic, because rho was selected by it."""


def render_paper_rows(rows: Sequence[PaperRow]) -> str:
    """Write our numbers next to the paper's; "" if there are no rows.

    Args:
        rows: Cells with the runs that repeat them.
    """
    if not rows:
        return ""
    table, notes = paper_rows_table(rows)
    parts = ["## Next to the paper's numbers", render_table(*table)]
    if notes:
        parts += ["Notes:", render_list(notes, numbered=True)]
    return "\n\n".join([*parts, PAPER_NOTE])


def render_families(families: Sequence[ComputeFamily]) -> str:
    """Write the comparison at equal compute; "" if there are no families.

    Args:
        families: Conditions that differ in method and epochs.
    """
    parts = ["## At equal compute"]
    for family in families:
        table = render_table(*compute_table(family))
        lines = [*missing_baselines(family), *unpaired_seeds(family.rows)]
        parts += [f"### {escape(family.title)}", table, render_list(lines)]
    return "\n\n".join(filter(None, [*parts, COMPUTE_NOTE])) if families else ""


def render_sweeps(sweeps: Sequence[RhoSweep]) -> str:
    """Write the errors of each rho and the selected rho; "" if there are no sweeps.

    Args:
        sweeps: The sweeps, each of one method in one setting.
    """
    parts = ["## Choice of rho"]
    for sweep in sweeps:
        title = f"### {escape(sweep.method)}: {escape(sweep.title)}"
        parts += [title, held_out(sweep), render_table(*sweep_table(sweep)), advice(sweep)]
    return "\n\n".join(filter(None, [*parts, RHO_NOTE])) if sweeps else ""
