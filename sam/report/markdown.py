"""The comparison as text: the table of each setting, then what looks at all settings at once."""

from collections.abc import Sequence

from sam.record.reader import Run
from sam.report.markup import escape, render_list, render_table
from sam.report.table import SettingTable
from sam.report.text_tables import describe_interrupted, setting_table

READING_AID = """\
Errors are those after the last epoch: mean ± half-width of the 95 % Student-t interval over n
seeds (no interval for one seed). Diverged runs are counted but enter no mean. The difference is
test error (or validation error) minus that of SGD of the same epochs with its paired 95 % interval,
over the seeds that both have, of which it takes at least two."""
PRINTED_NOTE = """\
Paper: the number that the paper prints for the closest condition, with its interval. A * marks runs
that depart from that condition in something; "Beside the paper" says in what."""
VALIDATION_NOTE = """\
Validation: the error on training images that were held out, in the place of the test images. It is
for choosing rho; all but one of the paper's tables print test errors of training on all images."""
CLEAN_NOTE = """\
Train error, noisy / clean labels: the share of the training images that are not given the label
that was trained on / their true class."""


def render_comparison(
    blocks: Sequence[SettingTable],
    sections: Sequence[str] = (),
    interrupted: Sequence[Run] = (),
    warnings: Sequence[str] = (),
) -> str:
    """Write a comparison as Markdown.

    Args:
        blocks: The settings with their rows.
        sections: More text, from a heading on; empty ones are left out.
        interrupted: Runs that have not ended, listed with their last epoch.
        warnings: Lines about what was left out.

    Returns:
        The text, ending in a newline.
    """
    parts = ["# Comparison of runs"]
    for block in blocks:
        parts += [
            f"## {escape(block.title)}",
            escape(block.setting.details),
            render_table(*setting_table(block)),
        ]
    parts += [*reading_notes(blocks), *sections]
    if interrupted:
        parts += ["## Not ended", render_list([describe_interrupted(run) for run in interrupted])]
    if warnings:
        parts += ["## Left out", render_list(warnings)]
    return "\n\n".join(part for part in parts if part) + "\n"


def reading_notes(blocks: Sequence[SettingTable]) -> list[str]:
    """Return what a reader must know of the tables of some settings, a paragraph each."""
    rows = [row for block in blocks for row in block.rows]
    tested = [row for block in blocks for row in block.rows if block.setting.split == "test"]
    notes = [
        (READING_AID, bool(rows)),
        (VALIDATION_NOTE, len(tested) < len(rows)),
        (CLEAN_NOTE, not all(block.setting.has_clean_labels for block in blocks)),
        (PRINTED_NOTE, any(row.paper is not None for row in rows)),
    ]
    return [text for text, is_needed in notes if is_needed]
