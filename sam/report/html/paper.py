"""The paper's tables as the page shows them: each printed number, and ours next to it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sam.paper.cells import Cell
from sam.report.beside_paper import PaperRow
from sam.report.comparison import Comparison
from sam.report.text_tables import beside_paper_table

# Shown although none of their cells was run, folded.
MAIN_TABLES = ("1", "2", "3", "4", "5")
TITLES = {
    "1": "CIFAR, trained from scratch",
    "2": "ImageNet, trained from scratch",
    "3": "Finetuning",
    "4": "CIFAR-10 with label noise",
    "5": "SVHN and Fashion-MNIST",
}
ROW_WORDS = ("Dataset", "Model", "Epochs", "Augmentation")
# Sign and class of each verdict; the words stay beside it.
SIGNS = {
    "inside both": ("✓", "inside"),
    "inside ours": ("✓", "inside"),
    "inside the paper's only": ("≈", "partly"),
    "inside ours only": ("≈", "partly"),
    "outside both": ("✗", "outside"),
    "outside ours": ("✗", "outside"),
    "too few seeds": ("?", "unknown"),
}


class PaperTable(NamedTuple):
    """One of the paper's tables.

    Attributes:
        title: Its number, and what it is about.
        words: Heads of the columns that name a row.
        methods: Heads of the columns of numbers.
        rows: The texts under `words`, and for each method the cell and our runs that repeat it most closely;
            None where the paper has no such cell, and where it was not run.
    """

    title: str
    words: list[str]
    methods: list[str]
    rows: list[tuple[list[str], list[tuple[Cell | None, PaperRow | None]]]]


class PaperTables(NamedTuple):
    """All tables that are shown.

    Attributes:
        measured: Those with a cell that was run.
        others: Tables 1 to 5, so far as none of their cells was run.
        notes: The notes on the cells that were run, from number 1 on.
    """

    measured: list[PaperTable]
    others: list[PaperTable]
    notes: list[str]


def paper_tables(comparison: Comparison) -> PaperTables:
    """Lay out the paper's tables.

    Args:
        comparison: What was read.
    """
    closest: dict[str, PaperRow] = {}
    for row in comparison.paper_rows:
        closest.setdefault(row.cell.name, row)
    by_table: dict[str, list[Cell]] = {}
    for cell in comparison.cells:
        by_table.setdefault(cell.table, []).append(cell)
    measured, others = [], []
    for name, cells in by_table.items():
        if any(cell.name in closest for cell in cells):
            measured.append(_table(name, cells, closest))
        elif name in MAIN_TABLES:
            others.append(_table(name, cells, closest))
    return PaperTables(measured, others, beside_paper_table(list(closest.values()))[1])


def _table(name: str, cells: Sequence[Cell], closest: Mapping[str, PaperRow]) -> PaperTable:
    methods = list(dict.fromkeys(cell.words[-1] for cell in cells))
    by_row: dict[tuple[str, ...], dict[str, Cell]] = {}
    for cell in cells:
        by_row.setdefault(cell.words[:-1], {})[cell.words[-1]] = cell
    used = [place for place in range(len(ROW_WORDS)) if any(words[place] for words in by_row)]
    rows = []
    for words, found in by_row.items():
        row_cells = [found.get(method) for method in methods]
        pairs = [(cell, closest.get(cell.name) if cell else None) for cell in row_cells]
        rows.append(([words[place] for place in used], pairs))
    title = f"Table {name}" + (f": {TITLES[name]}" if name in TITLES else "")
    return PaperTable(title, [ROW_WORDS[place] for place in used], methods, rows)
