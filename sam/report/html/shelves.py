"""A part of the report that has become long, on shelves: one for each dataset and model, closed at first."""

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from sam.report.html.nodes import node
from sam.report.html.tables import folded

# More than this take longer to scroll by than to find on a shelf.
MANY = 40


class Block(NamedTuple):
    """What belongs together on one shelf.

    Attributes:
        title: Of its setting, which begins with the names of the dataset and the model.
        parts: A heading or something folded first; None is left out.
    """

    title: str
    parts: Sequence[Element | None]


def shelve(blocks: Sequence[Block]) -> list[Element]:
    """Lay out blocks one below the other; where they are many, on shelves.

    A script lets those on shelves be searched, by the words of their first part.

    Args:
        blocks: In the order in which they are shown.
    """
    if len(blocks) <= MANY:
        return [part for block in blocks for part in block.parts if part is not None]
    shelves: dict[str, list[Element]] = {}
    for block in blocks:
        name = ", ".join(block.title.split(", ")[:2])
        shelves.setdefault(name, []).append(node("div", block.parts, class_="block"))
    made = []
    for name, members in shelves.items():
        shelf = folded(f"{name} ({len(members)})", members)
        shelf.set("class", "shelf")
        made.append(shelf)
    return made
