"""Tests of sam/report/html/page.py: what any page must hold, whatever the runs are called."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup

from sam.record.identity import identity
from sam.report.comparison import read_comparison
from sam.report.html.page import Picture, Pictures, render_report
from sam.report.sharpness_tables import sharpness_tables
from tests.record.analysis_files import write_hessian, write_sharpness
from tests.record.run_directories import falling_errors, typed_config, write_run

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


# Written by hand, as no writer of today does it: a run of an old version. Its config lacks many keys, and its
# result.json has no counts, no config and no checksums.
OLD_CONFIG = """
dataset: {name: cifar10, reader: cifar10, root: data, label_noise: 0.0}
model: {name: wrn_28_10, architecture: wide_resnet, depth: 28, width: 10}
augmentation: {name: basic, flip: true, crop_padding: 4, cutout_size: 0}
optimizer: {name: sam, lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 5e-4, clip_norm: 5.0, rho: 0.05}
runtime: {device: auto, precision: fp32}
epochs: 200
batch_size: 256
m: 32
seed: 8
outputs: outputs
"""
OLD_RESULT = """{"status": "complete", "message": "", "identity": "12345678", "seed": 8, "optimizer": "sam",
"rho": 0.05, "epochs": 200, "test_error_pct": 2.75, "train_error_pct": 0.02, "seconds": 100.0}"""


def test_report_shows_runs_of_an_old_version_with_those_of_today(tmp_path: Path) -> None:
    for method in ("sgd", "sam"):
        write_run(tmp_path, metrics=falling_errors(5, 3.5), seed=7, optimizer__name=method)
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.yaml").write_text(OLD_CONFIG)
    (old / "metrics.csv").write_text("epoch,test_error_pct,train_error_pct\n199,2.9,0.1\n200,2.75,0.02\n")
    (old / "result.json").write_text(
        OLD_RESULT.replace("12345678", identity(typed_config(optimizer__name="sam")))
    )
    comparison = read_comparison([tmp_path], CELLS)
    assert comparison.warnings == []
    (table,) = comparison.setting_tables
    assert [row.group.values("test_error_pct") for row in table.rows] == [{7: 3.5}, {7: 3.5, 8: 2.75}]
    assert "table1/cifar10/wrn_28_10_200/basic/sam" in {row.cell.name for row in comparison.paper_rows}
    assert "epochs 200, batch 256, m 32 (2 runs)" in _report(tmp_path)


def test_report_has_every_section(outputs: Path) -> None:
    text = _report(outputs)
    assert re.findall(r"<h2[^>]*>([^<]*)</h2>", text) == [
        "In short",
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
