"""Tests of sam/report/html/paper.py and its template."""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

from sam.report.comparison import read_comparison
from sam.report.html.page import environment
from tests.record.run_directories import write_run

CELLS = Path(__file__).resolve().parents[3] / "results" / "paper" / "cells.csv"
EXACT = {"optimizer__weight_decay_in": "loss", "model__init_seed": 0}


def _text(root: Path) -> str:
    comparison = read_comparison([root], CELLS)
    return f"<section>{environment().get_template('paper.html').render(comparison=comparison)}</section>"


def _render(root: Path) -> Element:
    return fromstring(_text(root))


def _write(root: Path, errors: list[float], **changes: Any) -> None:
    for seed, error in enumerate(errors):
        write_run(root, {"test_error_pct": error}, seed=seed, **EXACT, **changes)


def _row(table: Element, *names: str) -> list[str]:
    for row in table.findall("tbody/tr"):
        if tuple(head.text for head in row.findall("th"))[: len(names)] == names:
            return ["|".join(cell.itertext()) for cell in row.findall("td")]
    raise AssertionError(f"no row {names}")


def test_paper_table_has_ours_next_to_the_printed_number(tmp_path: Path) -> None:
    _write(tmp_path, [3.5, 3.6, 3.7], epochs=400)
    _write(tmp_path, [3.0], optimizer__name="sam", optimizer__rho=0.1)
    table = _render(tmp_path).find("div/table")
    assert table is not None
    assert table.findtext("caption") == "Table 1: CIFAR, trained from scratch. Test error (%)"
    assert [head.text for head in table.findall("thead/tr/th")][:6] == [
        "Dataset", "Model", "Epochs", "Augmentation", "SGD", "SAM",
    ]  # fmt: skip
    assert _row(table, "CIFAR-10", "WRN-28-10", "200", "Basic") == [
        "3.5 ± 0.1",
        "3.60 ± 0.25 (n = 3)|✓ inside both|note 1",
        "2.7 ± 0.1",
        "3.00 (n = 1)|? too few seeds|note 2 (departures)",
    ]
    assert _row(table, "CIFAR-10", "WRN-28-10", "200", "Cutout") == ["2.6 ± 0.1", "–", "2.3 ± 0.1", "–"]


def test_paper_table_says_with_word_and_sign_what_is_outside(tmp_path: Path) -> None:
    _write(tmp_path, [9.0, 9.1, 9.2], optimizer__name="sam")
    assert '<div class="outside">✗ outside both</div>' in _text(tmp_path)


def test_paper_notes_are_where_their_links_lead(tmp_path: Path) -> None:
    _write(tmp_path, [3.0], optimizer__name="sam", optimizer__rho=0.1)
    section = _render(tmp_path)
    links = {link.get("href") for link in section.iter("a")}
    assert links == {f"#{item.get('id')}" for item in section.iter("li") if item.get("id")} == {"#note-1"}
    note = next(section.iter("li"))
    assert note.text == "Departures: optimizer.rho=0.1 (0.05)"


def test_paper_table_of_imagenet_has_top_5_errors(tmp_path: Path) -> None:
    names = {"dataset__name": "imagenet", "model__name": "resnet50", "augmentation__name": "inception"}
    write_run(tmp_path, {"test_error_pct": 23.0, "test_top5_error_pct": 6.5}, **names, epochs=100)
    table = _render(tmp_path).find("div/table")
    assert table is not None
    printed, ours = _row(table, "ImageNet", "ResNet-50", "100")[:2]
    assert printed == "22.9 ± 0.1|top-5: 6.62 ± 0.11"
    assert ours.startswith("23.00 (n = 1)|top-5: 6.50 (n = 1)|? too few seeds|note 1 (departures)")


def test_paper_tables_without_a_run_are_folded(tmp_path: Path) -> None:
    _write(tmp_path, [3.5])
    section = _render(tmp_path)
    titles = [summary.text for summary in section.iter("summary")]
    assert titles[0] == "Table 2: ImageNet, trained from scratch: no runs"
    assert titles[-1].startswith("All comparisons in one list")
    captions = [caption.text for caption in section.findall("div/table/caption")]
    # Table 9 has the same condition.
    assert captions == ["Table 1: CIFAR, trained from scratch. Test error (%)", "Table 9. Test error (%)"]


def test_paper_tables_of_other_runs_are_all_folded(tmp_path: Path) -> None:
    write_run(tmp_path, model__name="resnet8")
    section = _render(tmp_path)
    assert section.findtext("p") == "No run repeats a condition of the paper."
    assert len(section.findall("details")) == 5


def test_paper_table_shows_the_closest_runs_and_the_list_all(tmp_path: Path) -> None:
    _write(tmp_path, [3.0], optimizer__name="sam")
    _write(tmp_path, [2.0], optimizer__name="sam", optimizer__rho=0.1)
    section = _render(tmp_path)
    table = section.find("div/table")
    assert table is not None
    assert _row(table, "CIFAR-10", "WRN-28-10", "200", "Basic")[3].startswith("3.00 (n = 1)")
    listed = section.findall("details")[-1]
    assert sum("2.00 (n = 1)" in (cell.text or "") for cell in listed.iter("td")) == 1
