"""Prepares tables for the templates of the report, and groups blocks by dataset and model ("shelves")."""

import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeVar

from sam.report.markup import NOTHING
from sam.report.text_tables import TextTable

# With more blocks than this, finding one by its shelf is faster than scrolling.
MANY = 40
# Cells to right-align: numbers, also with more text after them, and dates.
NUMBER = re.compile(r"[+-]?\d[\d.:e+-]*\*?( |$)")
MINUS = "\N{MINUS SIGN}"


class Titled(Protocol):
    """An object with the title of its setting, which begins with the names of the dataset and the model."""

    @property
    def title(self) -> str:
        """The title."""


Shelved = TypeVar("Shelved", bound=Titled)


class ShownTable(NamedTuple):
    """A table in the form that the page shows.

    Attributes:
        header: One text per column.
        is_text: For each column, whether it has a cell that is not a number.
        rows: One text per column, for each row.
    """

    header: list[str]
    is_text: list[bool]
    rows: list[list[str]]


def shown_columns(text: TextTable) -> ShownTable:
    """Leave out the columns that hold only dashes; write minus signs and dashes as their Unicode characters.

    Args:
        text: A table with at least one row.
    """
    columns = [
        (name, cells)
        for name, *cells in zip(text.header, *text.rows, strict=True)
        if any(cell != NOTHING for cell in cells)
    ]
    names, *others = columns
    dressed = [names[1], *(list(map(_dress, cells)) for _, cells in others)]
    return ShownTable(
        header=[name for name, _ in columns],
        is_text=[not all(map(_is_number, cells)) for _, cells in columns],
        rows=[list(row) for row in zip(*dressed, strict=True)],
    )


def shelves(blocks: Iterable[Shelved]) -> dict[str, list[Shelved]]:
    """Group blocks by dataset and model.

    Args:
        blocks: The blocks, in the order in which they are shown.

    Returns:
        The blocks of each shelf, by its name.
    """
    found: dict[str, list[Shelved]] = {}
    for block in blocks:
        found.setdefault(", ".join(block.title.split(", ")[:2]), []).append(block)
    return found


def _is_number(cell: str) -> bool:
    return cell in ("", NOTHING) or NUMBER.match(cell) is not None


def _dress(cell: str) -> str:
    if cell == NOTHING:
        return "\N{EN DASH}"
    return MINUS + cell[1:] if cell.startswith("-") and _is_number(cell) else cell
