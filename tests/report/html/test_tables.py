"""Tests of sam/report/html/tables.py, and of the tables and figures that the templates make."""

from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from sam.report.html.page import Picture, environment
from sam.report.text_tables import TextTable


def _render(call: str, **values: object) -> str:
    return (
        environment()
        .from_string(f'{{% import "parts.html" as parts %}}{{{{ parts.{call} }}}}')
        .render(values)
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    return _render("table(text, 'Errors')", text=TextTable(header, rows))


def test_table_has_caption_scopes_and_a_box_to_scroll() -> None:
    made = ElementTree.fromstring(_table(["Method", "Error (%)"], [["SGD", "3.50"], ["SAM", "2.70"]]))
    assert made.attrib == {"class": "scroll", "role": "region", "aria-label": "Errors", "tabindex": "0"}
    (inner,) = made
    assert inner.findtext("caption") == "Errors"
    assert [head.get("scope") for head in inner.findall("thead/tr/th")] == ["col", "col"]
    assert [head.get("scope") for head in inner.findall("tbody/tr/th")] == ["row", "row"]
    assert [cell.text for cell in inner.findall("tbody/tr/td")] == ["3.50", "2.70"]
    assert inner.get("class") == "sortable"


def test_table_leaves_out_columns_of_dashes() -> None:
    text = _table(["Method", "Paper", "n"], [["SGD", "-", "1"], ["SAM", "-", "-"]])
    assert "Paper" not in text
    assert "<td>\N{EN DASH}</td>" in text


@pytest.mark.parametrize(
    "cell", ["3.50 ± 0.10 (n = 3)", "-0.50", "+1", "0.1*", "2026-11-25 19:39:46", "20 of 40"]
)
def test_table_sets_numbers_flush_right(cell: str) -> None:
    assert '<td class="text">' not in _table(["Method", "x"], [["SGD", cell]])


@pytest.mark.parametrize("cell", ["selected", "(none)", "3d", "a 3"])
def test_table_sets_words_flush_left(cell: str) -> None:
    assert f'<td class="text">{cell}</td>' in _table(["Method", "x"], [["SGD", cell]])


def test_table_writes_a_minus_as_such() -> None:
    text = _table(["Method", "x"], [["-a", "-0.50 ± 0.10"], ["b", "-c"]])
    assert "\N{MINUS SIGN}0.50 ± 0.10" in text
    assert ">-a<" in text
    assert ">-c<" in text


@pytest.mark.parametrize("is_wide", [True, False])
def test_figure_has_its_caption_and_the_room_that_it_needs(is_wide: bool) -> None:
    picture = Picture(Markup('<img src="data:"/>'), "a < b", is_wide)
    made = ElementTree.fromstring(_render("figure(picture)", picture=picture))
    assert made.get("class") == ("wide" if is_wide else None)
    assert made.findtext("figcaption") == "a < b"
    assert [part.tag for part in made] == ["img", "figcaption"]


def test_bullets_of_nothing_are_none() -> None:
    assert _render("bullets([])").strip() == ""
