"""Tests of the templates in sam/report/html: what is shown stays text, and many blocks are put on shelves."""

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sam.report.html
from sam.report.html.page import environment
from sam.report.html.tables import MANY

FOLDER = Path(sam.report.html.__file__).parent
PARAGRAPH = '<p title="{{ attribute }}">{{ text }}</p>'
SHELVED = (
    '{% from "parts.html" import shelved %}'
    "<section>{% call(block) shelved(blocks) %}<h3>{{ block.name }}</h3>{% endcall %}</section>"
)
# The parser takes other ends of lines and the empty letter for something else.
TEXTS = st.text(st.characters(exclude_characters="\r\0", codec="utf-8"))


class _Reader(HTMLParser):
    """Collects what a parser sees: Python's own is the second reader."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.slow
@given(TEXTS, TEXTS)
def test_text_and_attributes_stay_what_they_are(text: str, attribute: str) -> None:
    read = _Reader(environment().from_string(PARAGRAPH).render(text=text, attribute=attribute))
    assert read.tags == [("p", {"title": attribute})]
    assert "".join(read.texts) == text


def test_no_template_lets_a_text_through_unescaped() -> None:
    templates = list(FOLDER.glob("*.html"))
    assert len(templates) == 11
    for path in templates:
        assert not re.search(r"\bsafe\b|autoescape|Markup|\bxmlattr\b", path.read_text(encoding="utf-8")), (
            path
        )
    marked = [path.name for path in FOLDER.glob("*.py") if "Markup(" in path.read_text(encoding="utf-8")]
    assert marked == ["page.py"]  # the script and the style that lie next to it


def _shelved(num_blocks: int) -> ElementTree.Element:
    """Blocks of two models in turn."""
    models = ("wrn_28_10", "resnet8")
    blocks = [
        SimpleNamespace(title=f"cifar10, {models[place % 2]}, basic, epochs {place}", name=f"title {place}")
        for place in range(num_blocks)
    ]
    return ElementTree.fromstring(environment().from_string(SHELVED).render(blocks=blocks))


def test_few_blocks_stand_one_below_the_other() -> None:
    made = _shelved(MANY)
    assert [(part.tag, part.text) for part in made] == [("h3", f"title {place}") for place in range(MANY)]


def test_many_blocks_lie_on_a_closed_shelf_for_each_dataset_and_model() -> None:
    made = _shelved(MANY + 1)
    assert [(part.tag, part.attrib) for part in made] == 2 * [("details", {"class": "shelf"})]
    assert [part.findtext("summary") for part in made] == [
        f"cifar10, wrn_28_10 ({MANY // 2 + 1})",
        f"cifar10, resnet8 ({MANY // 2})",
    ]
    blocks = made[0].findall("div")
    assert {block.get("class") for block in blocks} == {"block"}
    assert [block.findtext("h3") for block in blocks] == [f"title {place}" for place in range(0, MANY + 1, 2)]
