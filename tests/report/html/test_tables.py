"""Tests of sam/report/html/tables.py."""

import pytest

from sam.report.html.nodes import node, to_html
from sam.report.html.tables import Picture, bullets, figure, table
from sam.report.text_tables import TextTable


def test_table_has_caption_scopes_and_a_box_to_scroll() -> None:
    made = table(TextTable(["Method", "Error (%)"], [["SGD", "3.50"], ["SAM", "2.70"]]), "Errors")
    assert made.get("role") == "region"
    assert made.get("tabindex") == "0"
    (inner,) = made
    assert inner.findtext("caption") == "Errors"
    assert [head.get("scope") for head in inner.findall("thead/tr/th")] == ["col", "col"]
    assert [head.get("scope") for head in inner.findall("tbody/tr/th")] == ["row", "row"]
    assert [cell.text for cell in inner.findall("tbody/tr/td")] == ["3.50", "2.70"]
    assert inner.get("class") == "sortable"


def test_table_leaves_out_columns_of_dashes() -> None:
    text = to_html(
        table(TextTable(["Method", "Paper", "n"], [["SGD", "-", "1"], ["SAM", "-", "-"]]), "Errors")
    )
    assert "Paper" not in text
    assert "<td>\N{EN DASH}</td>" in text


@pytest.mark.parametrize(
    "cell", ["3.50 ± 0.10 (n = 3)", "-0.50", "+1", "0.1*", "2026-11-25 19:39:46", "20 of 40"]
)
def test_table_sets_numbers_flush_right(cell: str) -> None:
    assert '<td class="text">' not in to_html(table(TextTable(["Method", "x"], [["SGD", cell]]), "c"))


@pytest.mark.parametrize("cell", ["selected", "(none)", "3d", "a 3"])
def test_table_sets_words_flush_left(cell: str) -> None:
    assert f'<td class="text">{cell}</td>' in to_html(table(TextTable(["Method", "x"], [["SGD", cell]]), "c"))


def test_table_writes_a_minus_as_such() -> None:
    text = to_html(table(TextTable(["Method", "x"], [["-a", "-0.50 ± 0.10"], ["b", "-c"]]), "c"))
    assert "\N{MINUS SIGN}0.50 ± 0.10" in text
    assert ">-a<" in text
    assert ">-c<" in text


def test_figure_of_two_panels_is_wide() -> None:
    assert figure(Picture(node("svg", viewBox="0 0 756 300"), "a")).get("class") == "wide"
    assert figure(Picture(node("svg", viewBox="0 0 504 300"), "a")).get("class") is None
    assert figure(Picture(node("img", src="data:"), "a")).findtext("figcaption") == "a"


def test_bullets_of_nothing_are_none() -> None:
    assert bullets([]) is None
