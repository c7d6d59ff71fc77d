"""The paper's tables on the page: each printed number, with our number next to it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sam.paper.cells import Cell
from sam.report.comparison import Comparison
from sam.report.paper_rows import PaperRow
from sam.report.text_tables import paper_rows_table

# These tables are shown (folded) even if no cell was run.
MAIN_TABLES = ("1", "2", "3", "4", "5")
TITLES = {
    "1": "CIFAR, trained from scratch",
    "2": "ImageNet, trained from scratch",
    "3": "Fine-tuning",
    "4": "CIFAR-10 with label noise",
    "5": "SVHN and Fashion-MNIST",
}
ROW_WORDS = ("Dataset", "Model", "Epochs", "Augmentation")
# Sign and CSS class of each verdict; the page shows the sign in front of the words.
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
        title: Number and subject of the table.
        words: Headers of the columns that name a row.
        methods: Headers of the columns with numbers.
        rows: For each row, the texts under `words` and one pair per method: the cell and our closest runs. A
            missing cell or missing runs are None.
    """

    title: str
    words: list[str]
    methods: list[str]
    rows: list[tuple[list[str], list[tuple[Cell | None, PaperRow | None]]]]


class PaperTables(NamedTuple):
    """All tables that are shown.

    Attributes:
        measured: Tables with at least one cell that was run.
        others: Those of tables 1 to 5 of which no cell was run.
        notes: The notes on the cells that were run; their numbers start at 1.
    """

    measured: list[PaperTable]
    others: list[PaperTable]
    notes: list[str]


def paper_tables(comparison: Comparison) -> PaperTables:
    """Return the paper's tables.

    Args:
        comparison: The runs and their comparison.
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
    return PaperTables(measured, others, paper_rows_table(list(closest.values()))[1])


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
