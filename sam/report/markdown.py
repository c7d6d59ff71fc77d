"""The comparison as text: GitHub Markdown whose columns also line up in a terminal."""

import re
from collections.abc import Sequence

from sam.report.interval import Estimate
from sam.report.runs import Run
from sam.report.settings import Setting
from sam.report.table import Block, Row

NOTHING = "-"
READING_AID = """\
Errors are those after the last epoch: mean ± half-width of the 95 % Student-t interval over n
seeds (no interval for one seed). Diverged runs are counted but enter no mean. The difference is
test error (or validation error) minus that of SGD with its paired 95 % interval, over the seeds
that both have, of which it takes at least two."""
PRINTED_NOTE = """\
Paper: the number that the paper prints for this dataset, model, augmentation and length, with its
95 % interval over 5 runs. An SGD number of Table 1 is the better of the standard and of twice the
epochs. A SAM number belongs to the rho that the paper tuned, whichever rho stands in the row.
Nothing else is compared: see the settings above for batch size, m, learning rate and so on."""
VALIDATION_NOTE = """\
Validation: the error on training images that were held out, in the place of the test images. It is
for choosing rho; the paper's numbers are test errors of training on all images."""
CLEAN_NOTE = """\
Train error, noisy / clean labels: the share of the training images that are not given the label
that was trained on / their true class."""
BEST_NOTE = """\
(best): lowest mean test error of the sweep. It was selected on that very test error, so it is
optimistic; for a fair number select rho on held-out training images, with dataset.validation=last."""


def render_comparison(
    blocks: Sequence[Block], interrupted: Sequence[Run] = (), warnings: Sequence[str] = ()
) -> str:
    """Write a comparison as Markdown.

    Args:
        blocks: The settings with their rows.
        interrupted: Runs that have not ended, listed with their last epoch.
        warnings: Lines about what was left out.

    Returns:
        The text, ending in a newline.
    """
    parts = ["# Comparison of runs"]
    for block in blocks:
        parts += [f"## {_escape(block.title)}", _escape(block.setting.details), _render_rows(block)]
        parts += _choices(block)
    parts += _notes(blocks)
    if interrupted:
        parts += ["## Not ended", _render_list([_describe_interrupted(run) for run in interrupted])]
    if warnings:
        parts += ["## Left out", _render_list(warnings)]
    return "\n\n".join(part for part in parts if part) + "\n"


def format_estimate(estimate: Estimate | None, num_runs: int, sign: str = "") -> str:
    """Write a mean with its interval, and with its n where that is not the n of the row.

    Args:
        estimate: In percent or points; None gives a dash.
        num_runs: The n of the row.
        sign: "+" to show the sign of positive numbers too.

    Returns:
        Such as "2.70 ± 0.10 (n = 3)".
    """
    if estimate is None:
        return NOTHING
    text = f"{estimate.mean:{sign}.2f}"
    if estimate.half_width is not None:
        text += f" ± {estimate.half_width:.2f}"
    return text if estimate.num_values == num_runs else f"{text} (n = {estimate.num_values})"


def _render_rows(block: Block) -> str:
    table = [_header(block.setting), *(_cells(row, block.setting) for row in block.rows)]
    # A rule cell of less than a dash and a colon is no table to GitHub.
    widths = [max(2, *(len(cell) for cell in column)) for column in zip(*table, strict=True)]
    # The first column holds names, the others numbers.
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(cells, widths) for cells in (table[0], rule, *table[1:]))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "| " + " | ".join([first, *others]) + " |"


def _header(setting: Setting) -> tuple[str, ...]:
    return (
        "Method",
        f"{setting.split.capitalize()} error (%)",
        "Paper (%)",
        "Difference to SGD (points)",
        "Top-5 error (%)",
        "Train error (%)" if setting.has_clean_labels else "Train error, noisy / clean labels (%)",
        "Seconds per run",
        "n",
    )


def _cells(row: Row, setting: Setting) -> tuple[str, ...]:
    num_runs = len(row.group.complete)
    train_errors = [format_estimate(row.train_error_pct, num_runs)]
    if not setting.has_clean_labels:
        train_errors.append(format_estimate(row.train_clean_error_pct, num_runs))
    return (
        _escape(row.group.label) + (" (best)" if row.is_best else ""),
        format_estimate(row.test_error_pct, num_runs),
        NOTHING if row.printed is None else f"{row.printed.text} (Table {row.printed.table})",
        format_estimate(row.difference_points, num_runs, sign="+"),
        format_estimate(row.test_top5_error_pct, num_runs),
        " / ".join(train_errors),
        NOTHING if row.seconds is None else f"{row.seconds.mean:.0f}",
        str(num_runs) + (f" ({row.group.num_diverged} diverged)" if row.group.num_diverged else ""),
    )


def _choices(block: Block) -> list[str]:
    """Return one line about each rho that is chosen on held-out images, and may be."""
    if block.setting.split == "test":
        return []
    return [
        f"{_escape(row.group.method)}: best rho on the validation split: {row.group.rho} "
        f"(train on all with optimizer.rho={row.group.rho} dataset.validation=none)"
        for row in block.rows
        if row.is_best
    ]


def _notes(blocks: Sequence[Block]) -> list[str]:
    rows = [row for block in blocks for row in block.rows]
    tested = [row for block in blocks for row in block.rows if block.setting.split == "test"]
    notes = [
        (READING_AID, bool(rows)),
        (VALIDATION_NOTE, len(tested) < len(rows)),
        (CLEAN_NOTE, not all(block.setting.has_clean_labels for block in blocks)),
        (PRINTED_NOTE, any(row.printed is not None for row in rows)),
        (BEST_NOTE, any(row.is_best for row in tested)),
    ]
    return [text for text, is_needed in notes if is_needed]


def _describe_interrupted(run: Run) -> str:
    progress = f"epoch {run.last_epoch} of {run.config['epochs']}"
    return f"{run.directory}: interrupted or still running, {progress}"


def _render_list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_escape(line)}" for line in lines)


def _escape(text: str) -> str:
    # Underscores inside of words are no markup on GitHub; names are full of them.
    return re.sub(r"([|*<`])", r"\\\1", " ".join(text.split()))
