"""The tables of a comparison and their sentences as plain text, without markup."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sam.record.reader import Run
from sam.report.equal_compute import ComputeFamily, ComputeRow
from sam.report.groups import Group
from sam.report.interval import Estimate
from sam.report.markup import NOTHING, format_estimate
from sam.report.paired import Difference
from sam.report.paper_rows import PaperRow
from sam.report.rho_sweeps import RhoRow, RhoSweep
from sam.report.settings import HELD_OUT, Setting
from sam.report.table import SettingRow, SettingTable

# A line names this many seeds.
MAX_SEEDS = 10


class TextTable(NamedTuple):
    """A table whose first column names the row.

    Attributes:
        header: One text per column.
        rows: One text per column, for each row.
    """

    header: list[str]
    rows: list[list[str]]


def setting_table(block: SettingTable) -> TextTable:
    """Return the table of the conditions of one setting.

    Args:
        block: The setting.
    """
    setting = block.setting
    header = [
        "Method",
        f"{setting.split.capitalize()} error (%)",
        "Paper (%)",
        f"Difference to {setting.base} (points)",
        _p_header(setting),
        "Top-5 error (%)",
        "Train error (%)" if setting.has_clean_labels else "Train error, noisy / clean labels (%)",
        "Seconds per run",
        "n",
    ]
    return TextTable(header, [_setting_cells(row, setting) for row in block.rows])


def paper_rows_table(rows: Sequence[PaperRow]) -> tuple[TextTable, list[str]]:
    """Return the table of the paper's cells with the runs that repeat them.

    Args:
        rows: Cells with their runs.

    Returns:
        The table and the notes. The last column of the table holds numbers of notes, which start at 1.
    """
    notes: dict[str, int] = {}
    has_top5 = any(row.cell.top5 is not None for row in rows)
    header = ["Cell", "Paper (%)", "Ours (%)", "Difference (points)", "Verdict"]
    header += ["Paper, top-5 (%)", "Ours, top-5 (%)"] if has_top5 else []
    table = []
    for row in rows:
        cells = [row.cell.name, row.cell.top1.text, format_estimate(row.top1)]
        cells += [f"{row.difference_points:+.2f}", row.verdict]
        if has_top5:
            cells += [NOTHING if row.cell.top5 is None else row.cell.top5.text, format_estimate(row.top5)]
        numbers = [notes.setdefault(text, len(notes) + 1) for text in paper_notes(row)]
        table.append([*cells, ", ".join(map(str, sorted(numbers))) or NOTHING])
    return TextTable([*header, "Notes"], table), list(notes)


def compute_table(family: ComputeFamily) -> TextTable:
    """Return the table of conditions compared with SGD at equal passes.

    Args:
        family: Conditions that differ in method and epochs.
    """
    header = ["Method", "Epochs", "Passes", f"{family.split.capitalize()} error (%)"]
    setting = family.rows[0].group.setting
    header += [f"Difference to {setting.base} at equal passes (points)", _p_header(setting)]
    header += ["Seconds per run", "n"]
    return TextTable(header, [_compute_cells(row) for row in family.rows])


def sweep_table(sweep: RhoSweep) -> TextTable:
    """Return the table of the errors for each rho.

    Args:
        sweep: One method in one setting.
    """
    header = ["rho", "Validation error (%)", "Test error (%)", "Mark"]
    return TextTable(header, [_rho_cells(row, sweep) for row in sweep.rows])


def paper_notes(row: PaperRow) -> list[str]:
    """Return the notes on a row: departures from the cell, its alternatives, doubts about the cell."""
    notes = []
    if row.departures:
        notes.append("Departures: " + ", ".join(map(str, row.departures)))
    if row.alternative:
        missing = "".join(f", {text} not run" for text in row.not_run)
        rule = "" if row.not_run else ", the best of all alternatives"
        notes.append(f"{row.alternative}{rule}{missing}")
    if row.cell.doubt:
        notes.append(f"{row.cell.name}: {row.cell.doubt}")
    return notes


def missing_baselines(family: ComputeFamily) -> list[str]:
    """Return one line for each SGD run that a comparison at equal passes still needs."""
    fields = family.rows[0].group.setting.fields
    base = "" if fields["optimizer.base"] == "sgd" else f" optimizer.base={fields['optimizer.base']}"
    missing: dict[int, list[str]] = {}
    for row in family.rows:
        if row.missing_epochs is not None:
            missing.setdefault(row.missing_epochs, []).append(f"{row.group.label} ({row.epochs} epochs)")
    return [
        f"not run yet: optimizer=sgd{base} epochs={n}, to compare with {', '.join(missing[n])}"
        for n in sorted(missing)
    ]


def unpaired_seeds(rows: Iterable[SettingRow | ComputeRow]) -> list[str]:
    """Name the seeds that a condition has and its baseline lacks, and those of the opposite case."""
    lines = []
    for row in rows:
        if row.difference is None:
            continue
        base = row.group.setting.base
        for owner, lacking, seeds in (
            (row.group.label, base, row.difference.only_condition),
            (base, row.group.label, row.difference.only_baseline),
        ):
            if seeds:
                lines.append(f"without a partner: {owner}, {_seeds(seeds)}: no complete run of {lacking}")
    return lines


def held_out(sweep: RhoSweep) -> str:
    """Say on which images a sweep was validated."""
    if sweep.validation == "none":
        return "No training images were held out; dataset.validation=last or random holds out a tenth."
    share = HELD_OUT.get(sweep.validation, "a part")
    return f"Validation: {share} of the training images (dataset.validation={sweep.validation})."


def advice(sweep: RhoSweep) -> str:
    """Say which run with the selected rho is still missing; "" if none is."""
    if sweep.selected.test_error_pct is not None:
        return ""
    rho = f"optimizer.rho={sweep.selected.rho:g}"
    return f"Not run yet: the selected rho on all training images ({rho} dataset.validation=none)."


def describe_interrupted(run: Run) -> str:
    """Say how many epochs an unfinished run has completed."""
    progress = f"epoch {run.last_epoch} of {run.config['epochs']}"
    return f"{run.directory}: interrupted or still running, {progress}"


def _setting_cells(row: SettingRow, setting: Setting) -> list[str]:
    num_runs = len(row.group.complete)
    train_errors = [format_estimate(row.train_error_pct, num_runs)]
    if not setting.has_clean_labels:
        train_errors.append(format_estimate(row.train_clean_error_pct, num_runs))
    return [
        row.group.label,
        format_estimate(row.test_error_pct, num_runs),
        _paper(row),
        _points(row.difference, num_runs),
        _p_values(row.difference, setting),
        format_estimate(row.test_top5_error_pct, num_runs),
        " / ".join(train_errors),
        NOTHING if row.seconds is None else f"{row.seconds.mean:.0f}",
        str(num_runs) + (f" ({row.group.num_diverged} diverged)" if row.group.num_diverged else ""),
    ]


def _points(difference: Difference | None, num_runs: int) -> str:
    return NOTHING if difference is None else format_estimate(difference.estimate, num_runs, sign="+")


def _p_header(setting: Setting) -> str:
    return "p: t / sign-flip" + ("" if setting.draws_data_per_seed else " / Welch")


def _p_values(difference: Difference | None, setting: Setting) -> str:
    if difference is None:
        return NOTHING
    found = [difference.paired_t_p, difference.sign_flip_p]
    found += [] if setting.draws_data_per_seed else [difference.welch_p]
    if found == [None] * len(found):
        return NOTHING
    return " / ".join(NOTHING if p is None else f"{p:.2g}" for p in found)


def _seeds(seeds: Sequence[int]) -> str:
    named = ", ".join(map(str, seeds[:MAX_SEEDS]))
    more = len(seeds) - MAX_SEEDS
    return ("seed " if len(seeds) == 1 else "seeds ") + named + (f" and {more} more" if more > 0 else "")


def _paper(row: SettingRow) -> str:
    if row.paper is None:
        return NOTHING
    mark = "*" if row.paper.departures else ""
    return f"{row.paper.cell.top1.text}{mark} (Table {row.paper.cell.table})"


def _compute_cells(row: ComputeRow) -> list[str]:
    num_runs = len(row.group.complete)
    difference = _points(row.difference, num_runs)
    if row.partner is not None:
        difference += f" ({row.partner.label}, {row.partner.config['epochs']} epochs)"
    return [
        row.group.label,
        str(row.epochs),
        f"{round(row.passes_per_image, 1):g}",
        format_estimate(row.test_error_pct, num_runs),
        difference,
        _p_values(row.difference, row.group.setting),
        NOTHING if row.seconds is None else f"{row.seconds.mean:.0f}",
        str(num_runs),
    ]


def _rho_cells(row: RhoRow, sweep: RhoSweep) -> list[str]:
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
