"""The paper's tables as HTML: each printed number, and ours beside it."""

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from sam.paper.cells import Cell
from sam.report.beside_paper import PaperRow
from sam.report.comparison import Comparison
from sam.report.html.nodes import node
from sam.report.html.tables import folded, scroll_box, table
from sam.report.markdown_sections import BESIDE_NOTE
from sam.report.markup import format_estimate
from sam.report.text_tables import beside_paper_table, paper_notes

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


def render_paper(comparison: Comparison) -> list[Element]:
    """Make the paper's tables.

    Args:
        comparison: What was read; with no cells, nothing is shown.

    Returns:
        The tables with a cell that was run, the notes on them, then Tables 1 to 5 so far as none was run.
    """
    if not comparison.cells:
        return []
    closest: dict[str, PaperRow] = {}
    for row in comparison.paper_rows:
        closest.setdefault(row.cell.name, row)
    notes = beside_paper_table(list(closest.values()))[1]
    by_table: dict[str, list[Cell]] = {}
    for cell in comparison.cells:
        by_table.setdefault(cell.table, []).append(cell)
    measured, others = [], []
    for name, cells in by_table.items():
        if any(cell.name in closest for cell in cells):
            measured.append(_table(name, cells, closest, notes))
        elif name in MAIN_TABLES:
            others.append(folded(f"{_title(name)}: nothing run", _table(name, cells, closest, notes)))
    if not measured:
        return [node("p", "None of the runs repeats a condition of the paper."), *others]
    return [*measured, *_legend(notes), *others, _every(comparison.paper_rows)]


def _title(name: str) -> str:
    return f"Table {name}" + (f": {TITLES[name]}" if name in TITLES else "")


def _table(
    name: str, cells: Sequence[Cell], closest: Mapping[str, PaperRow], notes: Sequence[str]
) -> Element:
    methods = list(dict.fromkeys(cell.words[-1] for cell in cells))
    by_row: dict[tuple[str, ...], dict[str, Cell]] = {}
    for cell in cells:
        by_row.setdefault(cell.words[:-1], {})[cell.words[-1]] = cell
    used = [place for place in range(len(ROW_WORDS)) if any(words[place] for words in by_row)]
    heads = [node("th", ROW_WORDS[place], scope="col", rowspan="2", class_="text") for place in used]
    groups = [node("th", method, scope="colgroup", colspan="2", class_="method") for method in methods]
    columns = [
        node("th", who, scope="col", class_=kind)
        for _ in methods
        for who, kind in (("Paper", "printed"), ("Ours", "ours"))
    ]
    body = []
    for words, found in by_row.items():
        names = [node("th", words[place], scope="row", class_="text") for place in used]
        numbers = [part for method in methods for part in _pair(found.get(method), closest, notes)]
        body.append(node("tr", names, numbers))
    caption = f"{_title(name)}. Test error (%)"
    head = node("thead", node("tr", heads, groups), node("tr", columns))
    made = node("table", node("caption", caption), head, node("tbody", body), class_="paper")
    return scroll_box(made, caption)


def _pair(cell: Cell | None, closest: Mapping[str, PaperRow], notes: Sequence[str]) -> list[Element]:
    if cell is None:
        return [node("td", class_="printed"), node("td")]
    printed = [cell.top1.text]
    if cell.top5 is not None:
        printed.append(f"top-5: {cell.top5.text}")
    row = closest.get(cell.name)
    ours = node("td", "–") if row is None else node("td", _ours(row, notes))
    return [node("td", [node("div", line) for line in printed], class_="printed"), ours]


def _ours(row: PaperRow, notes: Sequence[str]) -> list[Element]:
    lines = [node("div", node("b", format_estimate(row.top1)))]
    if row.top5 is not None:
        lines.append(node("div", f"top-5: {format_estimate(row.top5)}"))
    sign, kind = SIGNS[row.verdict]
    lines.append(node("div", f"{sign} {row.verdict}", class_=kind))
    references = [
        node("a", f"{'departs' if text.startswith('Departs') else 'note'} {number}", href=f"#note-{number}")
        for number, text in enumerate(notes, start=1)
        if text in paper_notes(row)
    ]
    if references:
        lines.append(node("div", [part for link in references for part in (", ", link)][1:]))
    return lines


def _every(rows: Sequence[PaperRow]) -> Element:
    listed, notes = beside_paper_table(rows)
    return folded(
        "Every comparison in one list, those with more departures too",
        table(listed, "Ours beside the paper's, cell by cell"),
        node("ol", [node("li", text) for text in notes]),
    )


def _legend(notes: Sequence[str]) -> list[Element]:
    items = [node("li", text, id=f"note-{number}") for number, text in enumerate(notes, start=1)]
    listed = [node("h3", "Notes"), node("ol", items, class_="notes")] if items else []
    return [*listed, *(node("p", text, class_="aid") for text in BESIDE_NOTE.split("\n\n"))]
