"""Tests of sam/report/html/page.py: what any page must hold, whatever the runs are called."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup

from sam.report.comparison import read_comparison
from sam.report.html.page import Picture, Pictures, render_report
from sam.report.sharpness_tables import sharpness_tables
from tests.record.analysis_files import write_hessian, write_sharpness
from tests.record.run_directories import falling_errors, write_run

CELLS = Path(__file__).resolve().parents[3] / "results" / "paper" / "cells.csv"
VOID = ("meta", "link", "img")
NO_PICTURES = Pictures({}, {}, [], [])
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"


class _Checker(HTMLParser):
    """Fails if tags are not nested correctly; collects tags, ids and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if "href" in found else []
        assert not any(name.startswith("on") for name in found)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _report(root: Path, pictures: Pictures = NO_PICTURES) -> str:
    comparison = read_comparison([root], CELLS)
    return render_report(comparison, sharpness_tables(comparison.groups), pictures)


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Runs of every kind: two methods, lengths and rhos; diverged, interrupted, analysed and broken runs."""
    for seed in (0, 1):
        for method, error in (("sgd", 3.5), ("sam", 2.7)):
            counts = {"steps": 100, "forward_backward_passes": 100 if method == "sgd" else 200}
            result = {"test_error_pct": error + 0.1 * seed, **counts}
            run = write_run(tmp_path, result, falling_errors(5, error), seed=seed, optimizer__name=method)
            write_hessian(run, [20.0 * error + seed] * 5)
            write_sharpness(run, {1: 0.1 * error, 16: 0.05 * error})
    write_run(tmp_path, {"test_error_pct": 2.9}, optimizer__name="sam", optimizer__rho=0.1)
    write_run(tmp_path, {"status": "diverged", "test_error_pct": None}, seed=2)
    write_run(tmp_path, {"status": "interrupted"}, falling_errors(3, 9.0), seed=3)
    (write_run(tmp_path, seed=4) / "result.json").write_text("{")
    return tmp_path


def test_report_has_every_section(outputs: Path) -> None:
    text = _report(outputs)
    assert re.findall(r"<h2[^>]*>([^<]*)</h2>", text) == [
        "Next to the paper&#39;s numbers",
        "SGD and SAM compared",
        "At equal compute",
        "Choice of rho",
        "Sharpness",
        "Runs",
        "Unfinished runs",
        "Left out",
    ]
    assert "not run yet: optimizer=sgd epochs=400, to compare with SAM rho=0.05 (200 epochs)" in text
    assert "selected on the test split: optimistic" in text
    assert "Largest eigenvalue: difference to SGD" in text
    assert "result.json cannot be read" in text


def test_report_is_well_formed_and_its_links_lead_somewhere(outputs: Path) -> None:
    read = _Checker(_report(outputs))
    assert read.tags.count("h1") == read.tags.count("main") == 1
    assert len(set(read.ids)) == len(read.ids)
    assert {link.removeprefix("#") for link in read.links if link != "data:,"} <= set(read.ids)
    for tag in ("table", "figure"):
        assert read.tags.count(tag) == read.tags.count({"table": "caption", "figure": "figcaption"}[tag])


def test_report_loads_nothing(outputs: Path) -> None:
    text = _report(outputs)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert re.search(r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src", text)


def test_report_runs_no_script_but_its_own(outputs: Path) -> None:
    text = _report(outputs)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_report_treats_hostile_names_as_text(tmp_path: Path) -> None:
    names = {"dataset__name": HOSTILE, "model__name": HOSTILE, "augmentation__name": HOSTILE}
    results = {"message": HOSTILE, "device": HOSTILE, "commit": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    write_run(tmp_path, {**results, "ended_at": HOSTILE, "seconds": HOSTILE}, **names)
    write_run(tmp_path, {**results, "status": "interrupted"}, **names, optimizer__name="sam")
    write_run(tmp_path, results, **names, optimizer__name="sam", optimizer__direction=HOSTILE)
    text = _report(tmp_path)
    read = _Checker(text)
    assert read.tags.count("script") == 1
    assert "img" not in read.tags
    assert "&lt;img src=x onerror=alert(2)&gt;" in text


def test_report_shows_pictures_where_they_belong(outputs: Path) -> None:
    comparison = read_comparison([outputs], CELLS)
    key = comparison.setting_tables[0].setting.key
    curves, sharp, single = (Picture(Markup("<svg></svg>"), name) for name in ("one", "two", "three"))
    text = _report(outputs, Pictures({key: curves}, {key: sharp}, [single], ["too many to draw"]))
    places = [text.index(mark) for mark in ('id="settings"', ">one<", 'id="sharpness"', ">two<", ">three<")]
    assert places == sorted(places)
    assert "<li>too many to draw</li>" in text


def test_report_without_the_numbers_of_the_paper_leaves_their_section_out(tmp_path: Path) -> None:
    write_run(tmp_path)
    text = render_report(read_comparison([tmp_path], tmp_path / "absent.csv"), [], NO_PICTURES)
    assert 'id="paper"' not in text
    assert "the paper&#39;s numbers are not shown" in text


def test_report_of_the_same_runs_is_the_same(outputs: Path) -> None:
    assert _report(outputs) == _report(outputs)
