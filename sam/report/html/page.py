"""The report of all runs as one HTML file that needs no other, and no network."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from sam.record.reader import number
from sam.report.comparison import Comparison
from sam.report.html.nodes import node, to_html
from sam.report.html.paper import render_paper
from sam.report.html.runs import render_interrupted, render_runs
from sam.report.html.shelves import Block, shelve
from sam.report.html.tables import Picture, bullets, figure, table
from sam.report.markdown import reading_notes
from sam.report.markdown_sections import COMPUTE_NOTE, RHO_NOTE
from sam.report.sharpness_tables import SharpnessTable
from sam.report.text_tables import (
    advice,
    compute_table,
    held_out,
    missing_baselines,
    setting_table,
    sweep_table,
)

FOLDER = Path(__file__).parent
SHARPNESS_NOTE = """\
Mean ± half-width of the 95 % Student-t interval over n seeds; the difference is paired, over the seeds
that a condition and SGD both have, of which it takes at least two. Only analyses that were made alike are
put together."""


class Pictures(NamedTuple):
    """What is drawn for a report.

    Attributes:
        curves: Errors against the epoch, by `Setting.key`.
        sharpness: Sharpness of the conditions of a setting, by `Setting.key`.
        analyses: Of single runs.
        left_out: One line about each kind of which not all are drawn.
    """

    curves: Mapping[str, Picture]
    sharpness: Mapping[str, Picture]
    analyses: Sequence[Picture]
    left_out: Sequence[str]


class Section(NamedTuple):
    """One part of the report: its anchor, its heading, and what it holds; nothing leaves it out."""

    anchor: str
    title: str
    content: Sequence[Element | None]


def render_report(comparison: Comparison, sharpness: Sequence[SharpnessTable], pictures: Pictures) -> str:
    """Write the report.

    Args:
        comparison: What was read.
        sharpness: What analyses say of the conditions.
        pictures: What was drawn.

    Returns:
        The file's text, ending in a newline.
    """
    sections = [
        Section("paper", "Beside the paper", render_paper(comparison)),
        Section("settings", "SGD beside SAM", _settings(comparison, pictures)),
        Section("compute", "At equal compute", _families(comparison)),
        Section("rho", "Choice of rho", _sweeps(comparison)),
        Section("sharpness", "Sharpness", _sharpness(sharpness, pictures)),
        Section("runs", "Runs", render_runs(comparison)),
        Section("not-ended", "Not ended", _interrupted(comparison)),
        Section("left-out", "Left out", [bullets([*comparison.warnings, *pictures.left_out])]),
    ]
    shown = [section for section in sections if any(part is not None for part in section.content)]
    links = [node("li", node("a", part.title, href=f"#{part.anchor}")) for part in shown]
    header = node(
        "header",
        node("h1", "Report of runs: SGD and SAM"),
        _facts(comparison),
        node("nav", node("ul", links), aria_label="Contents"),
    )
    main = node("main", [_section(section) for section in shown])
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    body = node("body", header, main, _footer(), node("script", script))
    return f"<!doctype html>\n{to_html(node('html', _head(script), body, lang='en'))}\n"


def _head(script: str) -> Element:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Nothing is loaded from anywhere, and no script runs but this one, whatever a run is called.
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", http_equiv="Content-Security-Policy", content=policy),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("title", "Report of runs: SGD and SAM"),
        node("link", rel="icon", href="data:,"),
        node("style", (FOLDER / "report.css").read_text(encoding="utf-8")),
    )


def _facts(comparison: Comparison) -> Element:
    results = [run.result for run in comparison.runs if run.result is not None]
    complete = sum(result["status"] == "complete" for result in results)
    seconds = sum(number(result.get("seconds")) or 0.0 for result in results)
    facts = {
        "Complete runs": str(complete),
        "Diverged": str(len(results) - complete),
        "Not ended": str(len(comparison.interrupted)),
        "Conditions": str(len(comparison.groups)),
        "Settings": str(len(comparison.blocks)),
        "Hours of training": f"{seconds / 3600:.1f}",
        "Last ended (UTC)": max((str(result.get("ended_at") or "") for result in results), default="")[:16],
    }
    pairs = [
        node("div", node("dt", name), node("dd", text.replace("T", " ")))
        for name, text in facts.items()
        if text
    ]
    return node("dl", pairs, class_="facts")


def _section(section: Section) -> Element:
    heading = node("h2", section.title, id=f"{section.anchor}-title")
    label = f"{section.anchor}-title"
    return node("section", heading, section.content, id=section.anchor, aria_labelledby=label)


def _settings(comparison: Comparison, pictures: Pictures) -> list[Element]:
    blocks = []
    for block in comparison.blocks:
        curves = pictures.curves.get(block.setting.key)
        parts = [
            node("h3", block.title),
            node("p", f"Trained with {block.setting.details}.", class_="aid"),
            table(setting_table(block), "After the last epoch, mean over seeds"),
            None if curves is None else figure(curves),
        ]
        blocks.append(Block(block.title, parts))
    return [*_paragraphs(reading_notes(comparison.blocks)), *shelve(blocks)]


def _families(comparison: Comparison) -> list[Element]:
    blocks = []
    for family in comparison.families:
        made = table(compute_table(family), "Passes: forward and backward, per training image")
        parts = [node("h3", family.title), made, bullets(missing_baselines(family))]
        blocks.append(Block(family.title, parts))
    return [*_paragraphs([COMPUTE_NOTE]), *shelve(blocks)] if blocks else []


def _sweeps(comparison: Comparison) -> list[Element]:
    blocks = []
    for sweep in comparison.sweeps:
        parts = [node("h3", f"{sweep.method}: {sweep.title}"), node("p", held_out(sweep))]
        parts.append(table(sweep_table(sweep), "Error after the last epoch"))
        blocks.append(Block(sweep.title, [*parts, *_paragraphs([advice(sweep)])]))
    return [*_paragraphs([RHO_NOTE]), *shelve(blocks)] if blocks else []


def _sharpness(tables: Sequence[SharpnessTable], pictures: Pictures) -> list[Element]:
    parts = _paragraphs([SHARPNESS_NOTE]) if tables else []
    by_setting: dict[str, list[SharpnessTable]] = {}
    for one in tables:
        by_setting.setdefault(one.setting_key, []).append(one)
    for key, made in by_setting.items():
        parts += [node("h3", made[0].title), *(table(one.text, one.caption) for one in made)]
        if key in pictures.sharpness:
            parts.append(figure(pictures.sharpness[key]))
    if pictures.analyses:
        parts += [node("h3", "Single runs"), node("div", map(figure, pictures.analyses), class_="gallery")]
    return parts


def _interrupted(comparison: Comparison) -> list[Element]:
    return [render_interrupted(comparison.interrupted)] if comparison.interrupted else []


def _footer() -> Element:
    return node(
        "footer", node("p", "Made by scripts/report.py from the files of the runs alone.", class_="aid")
    )


def _paragraphs(texts: Iterable[str]) -> list[Element]:
    return [node("p", part, class_="aid") for text in texts if text for part in text.split("\n\n")]
