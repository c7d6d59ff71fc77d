"""The comparison as Markdown: one table for each setting, then the sections over all settings."""

from collections.abc import Sequence

from sam.record.reader import Run
from sam.report.markup import escape, render_list, render_table
from sam.report.table import SettingTable
from sam.report.text_tables import describe_interrupted, setting_table, unpaired_seeds

READING_AID = """\
All errors are measured after the last epoch. They are shown as mean ± half-width of the 95 %
Student-t interval over n seeds (no interval for one seed). Diverged runs are counted, but are not
part of a mean. The difference is the test error (or validation error) minus that of SGD with the
same number of epochs. Its 95 % interval is paired: it uses the seeds that both have, at least two.
p is two-sided, for these pairs: by the paired t-test and by the exact sign-flip test (at most 20
pairs; with n pairs, its p is at least 2 / 2^n). If all seeds have the same training images and
labels, the p of Welch's t-test over all seeds is shown too. p is not corrected: of many
comparisons without any effect, one in twenty has p < 0.05."""
PRINTED_NOTE = """\
Paper: the number that the paper prints for the closest condition, with its interval. A * marks runs
that differ from that condition; the section "Next to the paper's numbers" lists the differences."""
VALIDATION_NOTE = """\
Validation: the error on held-out training images, not on the test images. It is used to choose rho.
All but one of the paper's tables print test errors after training on all training images."""
CLEAN_NOTE = """\
Train error, noisy / clean labels: the share of the training images whose prediction differs from the
label that was trained on / from their true class."""


def render_comparison(
    blocks: Sequence[SettingTable],
    sections: Sequence[str] = (),
    interrupted: Sequence[Run] = (),
    warnings: Sequence[str] = (),
) -> str:
    """Write a comparison as Markdown.

    Args:
        blocks: The settings with their rows.
        sections: More sections, each with its heading; empty ones are left out.
        interrupted: Runs that have not ended, listed with their last epoch.
        warnings: One line about each thing that was left out.

    Returns:
        The text, ending in a newline.
    """
    parts = ["# Comparison of runs"]
    for block in blocks:
        parts += [
            f"## {escape(block.title)}",
            escape(block.setting.details),
            render_table(*setting_table(block)),
            render_list(unpaired_seeds(block.rows)),
        ]
    parts += [*reading_notes(blocks), *sections]
    if interrupted:
        parts += ["## Unfinished runs", render_list([describe_interrupted(run) for run in interrupted])]
    if warnings:
        parts += ["## Left out", render_list(warnings)]
    return "\n\n".join(part for part in parts if part) + "\n"


def reading_notes(blocks: Sequence[SettingTable]) -> list[str]:
    """Return the explanations that the tables of some settings need, one paragraph each."""
    rows = [row for block in blocks for row in block.rows]
    tested = [row for block in blocks for row in block.rows if block.setting.split == "test"]
    notes = [
        (READING_AID, bool(rows)),
        (VALIDATION_NOTE, len(tested) < len(rows)),
        (CLEAN_NOTE, not all(block.setting.has_clean_labels for block in blocks)),
        (PRINTED_NOTE, any(row.paper is not None for row in rows)),
    ]
    return [text for text, is_needed in notes if is_needed]
