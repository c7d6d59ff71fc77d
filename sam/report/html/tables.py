"""Tables, figures and lists of the report as HTML elements."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from sam.report.html.nodes import Content, node
from sam.report.markup import NOTHING
from sam.report.text_tables import TextTable

WIDE_POINTS = 600
# What is set flush right: numbers with or without more behind them, and dates.
NUMBER = re.compile(r"[+-]?\d[\d.:e+-]*\*?( |$)")
MINUS = "\N{MINUS SIGN}"


class Picture(NamedTuple):
    """A drawing that needs no other file.

    Attributes:
        drawing: An svg or img element that has its own text for those who do not see it.
        caption: What it shows.
    """

    drawing: Element
    caption: str


def table(text: TextTable, caption: str) -> Element:
    """Make a table that scrolls inside of its own box where the page is too narrow for it.

    Args:
        text: Header and cells, at least one row; columns with nothing but dashes are left out.
        caption: What the table holds.
    """
    columns = [
        (name, cells)
        for name, *cells in zip(text.header, *text.rows, strict=True)
        if any(cell != NOTHING for cell in cells)
    ]
    classes = [{} if all(map(_is_number, cells)) else {"class": "text"} for _, cells in columns]
    heads = zip(columns, classes, strict=True)
    head = [node("th", name, scope="col", **extra) for (name, _), extra in heads]
    body = []
    for first, *others in zip(*(cells for _, cells in columns), strict=True):
        cells = [node("td", _dress(cell), **extra) for cell, extra in zip(others, classes[1:], strict=True)]
        body.append(node("tr", node("th", first, scope="row"), cells))
    made = node("table", node("caption", caption), node("thead", node("tr", head)), node("tbody", body))
    # A script lets it be sorted.
    if len(text.rows) > 1:
        made.set("class", "sortable")
    return scroll_box(made, caption)


def scroll_box(content: Element, label: str) -> Element:
    """Put something wide into a box that scrolls, also by keyboard."""
    return node("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")


def figure(picture: Picture) -> Element:
    """Make a figure with its caption."""
    made = node("figure", picture.drawing, node("figcaption", picture.caption))
    # Two panels side by side need the room of two pictures.
    if float(picture.drawing.get("viewBox", "0 0 0 0").split()[2]) > WIDE_POINTS:
        made.set("class", "wide")
    return made


def folded(title: str, *content: Content | Iterable[Content]) -> Element:
    """Make a part that opens when its title is clicked."""
    return node("details", node("summary", title), *content)


def bullets(lines: Sequence[str]) -> Element | None:
    """Make a list of sentences; None for no sentence."""
    return node("ul", [node("li", line) for line in lines]) if lines else None


def settings_line(pairs: Iterable[str]) -> Element:
    """Make a paragraph of KEY=VALUE that breaks between the pairs only where it can."""
    made = node("p", class_="settings")
    for pair in pairs:
        code = node("code", pair)
        code.tail = " "
        made.append(code)
    return made


def _is_number(cell: str) -> bool:
    return cell in ("", NOTHING) or NUMBER.match(cell) is not None


def _dress(cell: str) -> str:
    if cell == NOTHING:
        return "\N{EN DASH}"
    return MINUS + cell[1:] if cell.startswith("-") and _is_number(cell) else cell
