"""GitHub Markdown for tables, lists and numbers; the columns of a table also line up in a terminal."""

import re
import textwrap
from collections.abc import Sequence

from sam.report.interval import Estimate

NOTHING = "-"
WIDTH = 110


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; the first column is left-aligned, the others are right-aligned.

    Args:
        header: One cell per column.
        rows: One cell per column for each row; markup in the first cell, a name, is escaped.
    """
    rows = [[escape(name), *others] for name, *others in rows]
    table = [header, *rows]
    # GitHub needs at least a dash and a colon in each cell of the rule.
    widths = [max(2, *(len(cell) for cell in column)) for column in zip(*table, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(cells, widths) for cells in (header, rule, *rows))


def render_list(lines: Sequence[str], numbered: bool = False) -> str:
    """Write a list; a numbered list starts at 1, and its long lines are wrapped.

    Args:
        lines: Plain text; markup in it is escaped.
        numbered: Whether the items have numbers instead of dashes.
    """
    if not numbered:
        return "\n".join(f"- {escape(line)}" for line in lines)
    return "\n".join(
        textwrap.fill(
            f"{number}. {escape(line)}",
            WIDTH,
            subsequent_indent="   ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for number, line in enumerate(lines, start=1)
    )


def format_estimate(estimate: Estimate | None, num_runs: int | None = None, sign: str = "") -> str:
    """Write a mean with its interval, and with its n if that is not the n of the row.

    Args:
        estimate: A mean, in percent or percentage points; None gives a dash.
        num_runs: The n of the row; None if the row does not show it.
        sign: "+" to show the sign of positive numbers too.

    Returns:
        A text such as "2.70 ± 0.10 (n = 3)".
    """
    if estimate is None:
        return NOTHING
    text = f"{estimate.mean:{sign}.2f}"
    if estimate.half_width is not None:
        text += f" ± {estimate.half_width:.2f}"
    return text if estimate.num_values == num_runs else f"{text} (n = {estimate.num_values})"


def escape(text: str) -> str:
    """Return a text in one line, with GitHub markup escaped."""
    # Underscores are not escaped: many names have them, and inside words they are not markup on GitHub.
    # "](" is escaped, since it would make a link, or a picture that is loaded from another site.
    return re.sub(r"([\\|*<`]|(?<=\])\()", r"\\\1", " ".join(text.split()))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "| " + " | ".join([first, *others]) + " |"
