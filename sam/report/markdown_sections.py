"""The sections that look at all settings at once: beside the paper, at equal compute, over rho."""

from collections.abc import Sequence

from sam.report.beside_paper import PaperRow
from sam.report.equal_compute import ComputeRow, Family
from sam.report.groups import Group
from sam.report.interval import Estimate
from sam.report.markup import NOTHING, escape, format_estimate, render_list, render_table
from sam.report.rho_sweeps import Sweep, SweepRow
from sam.report.settings import HELD_OUT

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
    notes: dict[str, int] = {}
    has_top5 = any(row.cell.top5 is not None for row in rows)
    header = ["Cell", "Paper (%)", "Ours (%)", "Difference (points)", "Verdict"]
    header += ["Paper, top-5 (%)", "Ours, top-5 (%)"] if has_top5 else []
    table = []
    for row in rows:
        cells = [escape(row.cell.name), row.cell.top1.text, format_estimate(row.top1)]
        cells += [f"{row.difference_points:+.2f}", row.verdict]
        if has_top5:
            cells += [NOTHING if row.cell.top5 is None else row.cell.top5.text, format_estimate(row.top5)]
        numbers = [notes.setdefault(text, len(notes) + 1) for text in _paper_notes(row)]
        table.append([*cells, ", ".join(map(str, sorted(numbers))) or NOTHING])
    parts = ["## Beside the paper", render_table([*header, "Notes"], table)]
    if notes:
        parts += ["Notes:", render_list(list(notes), numbered=True)]
    return "\n\n".join([*parts, BESIDE_NOTE])


def render_families(families: Sequence[Family]) -> str:
    """Write what can be compared at equal compute; "" for nothing.

    Args:
        families: Conditions that differ in method and epochs.
    """
    parts = ["## At equal compute"]
    for family in families:
        header = ["Method", "Epochs", "Passes", f"{family.split.capitalize()} error (%)"]
        header += ["Difference to SGD of as many passes (points)", "Seconds per run", "n"]
        table = [_compute_cells(row) for row in family.rows]
        parts += [f"### {escape(family.title)}", render_table(header, table), _missing(family)]
    return "\n\n".join(filter(None, [*parts, COMPUTE_NOTE])) if families else ""


def render_sweeps(sweeps: Sequence[Sweep]) -> str:
    """Write what each rho reached, and which one is selected; "" for no sweep.

    Args:
        sweeps: One method in one setting each.
    """
    parts = ["## Choice of rho"]
    for sweep in sweeps:
        table = [_rho_cells(row, sweep) for row in sweep.rows]
        header = ["rho", "Validation error (%)", "Test error (%)", "Mark"]
        title = f"### {escape(sweep.method)}: {escape(sweep.title)}"
        parts += [title, _held_out(sweep), render_table(header, table), _advice(sweep)]
    return "\n\n".join(filter(None, [*parts, RHO_NOTE])) if sweeps else ""


def _paper_notes(row: PaperRow) -> list[str]:
    notes = []
    if row.departures:
        notes.append("Departs: " + ", ".join(map(str, row.departures)))
    if row.alternative:
        missing = "".join(f", {text} not run" for text in row.not_run)
        rule = "" if row.not_run else ", the best of all alternatives"
        notes.append(f"{row.alternative}{rule}{missing}")
    if row.cell.doubt:
        notes.append(f"{row.cell.name}: {row.cell.doubt}")
    return notes


def _compute_cells(row: ComputeRow) -> list[str]:
    num_runs = len(row.group.complete)
    difference = format_estimate(row.difference_points, num_runs, sign="+")
    if row.partner is not None:
        difference += f" (SGD, {row.partner.config['epochs']} epochs)"
    return [
        escape(row.group.label),
        str(row.epochs),
        f"{round(row.passes_per_image, 1):g}",
        format_estimate(row.test_error_pct, num_runs),
        difference,
        NOTHING if row.seconds is None else f"{row.seconds.mean:.0f}",
        str(num_runs),
    ]


def _missing(family: Family) -> str:
    missing: dict[int, list[str]] = {}
    for row in family.rows:
        if row.missing_epochs is not None:
            missing.setdefault(row.missing_epochs, []).append(f"{row.group.label} ({row.epochs} epochs)")
    return render_list(
        [f"optimizer=sgd epochs={n} is not run; to compare {', '.join(missing[n])}" for n in sorted(missing)]
    )


def _rho_cells(row: SweepRow, sweep: Sweep) -> list[str]:
    mark = ""
    if row is sweep.selected:
        mark = "selected" if sweep.split == "validation" else "selected on the test split: optimistic"
    return [
        f"{row.rho:g}",
        _error(row.validation_error_pct, row.validation),
        _error(row.test_error_pct, row.test),
        mark,
    ]


def _error(error: Estimate | None, group: Group | None) -> str:
    diverged = f" ({group.num_diverged} diverged)" if group and group.num_diverged else ""
    return format_estimate(error) + diverged


def _held_out(sweep: Sweep) -> str:
    if sweep.validation == "none":
        return "No training images were held out (dataset.validation=last or random does)."
    share = HELD_OUT.get(sweep.validation, "a part")
    return f"Validation: {share} of the training images (dataset.validation={sweep.validation})."


def _advice(sweep: Sweep) -> str:
    if sweep.selected.test_error_pct is not None:
        return ""
    rho = f"optimizer.rho={sweep.selected.rho:g}"
    return f"Not run with the selected rho: training on all images ({rho} dataset.validation=none)."
