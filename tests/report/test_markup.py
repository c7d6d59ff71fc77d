"""Tests of sam/report/markup.py."""

from sam.report.interval import Estimate
from sam.report.markup import WIDTH, escape, format_estimate, render_list, render_table


def test_table_lines_up_and_has_rules_that_github_takes() -> None:
    assert render_table(["Name", "n"], [["a", "1"], ["longer", "10"]]).splitlines() == [
        "| Name   |  n |",
        "| ------ | -: |",
        "| a      |  1 |",
        "| longer | 10 |",
    ]


def test_numbered_list_breaks_long_lines_inside_of_the_item() -> None:
    text = render_list([" ".join(["optimizer.rho=0.1"] * 20), "b-c"], numbered=True)
    *first, last = text.splitlines()
    assert first[0].startswith("1. optimizer.rho=0.1 optimizer.rho=0.1 ")
    assert len(first) == 4
    assert all(line.startswith("   optimizer") for line in first[1:])
    assert max(map(len, first)) <= WIDTH
    assert last == "2. b-c"


def test_list_keeps_markup_out_of_its_text() -> None:
    assert render_list(["a | b\n# *c* <d>"]) == "- a \\| b # \\*c\\* \\<d>"
    assert escape("`x_y`") == "\\`x_y\\`"


def test_format_estimate_tells_a_differing_number_of_values() -> None:
    assert format_estimate(Estimate(0.5, None, 1), 3) == "0.50 (n = 1)"
    assert format_estimate(Estimate(0.5, 0.25, 3), 3) == "0.50 ± 0.25"
    assert format_estimate(Estimate(0.5, 0.25, 3)) == "0.50 ± 0.25 (n = 3)"
    assert format_estimate(None) == "-"


def test_format_estimate_signs_differences() -> None:
    assert format_estimate(Estimate(0.5, 0.25, 3), 3, sign="+") == "+0.50 ± 0.25"
    assert format_estimate(Estimate(-0.5, 0.25, 3), 3, sign="+") == "-0.50 ± 0.25"
