"""The report of all runs as one HTML file that needs no other file and no network."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sam.record.values import number
from sam.report.comparison import Comparison
from sam.report.html.paper import SIGNS, paper_tables
from sam.report.html.runs import interrupted_table, run_lists
from sam.report.html.tables import MANY, shelves, shown_columns
from sam.report.markdown import reading_notes
from sam.report.markdown_sections import COMPUTE_NOTE, PAPER_NOTE, RHO_NOTE
from sam.report.markup import format_estimate
from sam.report.sharpness_tables import SharpnessTable
from sam.report.summary import in_short
from sam.report.text_tables import (
    advice,
    compute_table,
    held_out,
    missing_baselines,
    paper_notes,
    paper_rows_table,
    setting_table,
    sweep_table,
    unpaired_seeds,
)

FOLDER = Path(__file__).parent
FILTERS = (
    advice,
    paper_rows_table,
    compute_table,
    format_estimate,
    held_out,
    in_short,
    interrupted_table,
    missing_baselines,
    paper_notes,
    paper_tables,
    reading_notes,
    run_lists,
    setting_table,
    shelves,
    shown_columns,
    sweep_table,
    unpaired_seeds,
)


class Picture(NamedTuple):
    """A drawing that needs no other file.

    Attributes:
        drawing: An svg or img element with a text alternative for screen readers.
        caption: What the picture shows.
        is_wide: Whether the picture is as wide as two.
    """

    drawing: Markup
    caption: str
    is_wide: bool = False


class Pictures(NamedTuple):
    """The pictures of a report.

    Attributes:
        curves: Errors against the epoch, by `Setting.key`.
        sharpness: Sharpness of the conditions of a setting, by `Setting.key`.
        analyses: Pictures of single runs.
        left_out: One line about each kind of picture that is not drawn for all runs.
    """

    curves: Mapping[str, Picture]
    sharpness: Mapping[str, Picture]
    analyses: Sequence[Picture]
    left_out: Sequence[str]


def environment() -> Environment:
    """Return the templates of the page; they escape every text except our own Markup."""
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update({function.__name__: function for function in FILTERS})
    notes = {"PAPER_NOTE": PAPER_NOTE, "COMPUTE_NOTE": COMPUTE_NOTE, "RHO_NOTE": RHO_NOTE}
    made.globals.update(notes, MANY=MANY, SIGNS=SIGNS, zip=zip)
    return made


def render_report(comparison: Comparison, sharpness: Sequence[SharpnessTable], pictures: Pictures) -> str:
    """Write the report.

    Args:
        comparison: The runs and their comparison.
        sharpness: The sharpness tables.
        pictures: The pictures.

    Returns:
        The text of the file, ending in a newline.
    """
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    left_out = [*comparison.warnings, *pictures.left_out]
    text = (
        environment()
        .get_template("page.html")
        .render(
            comparison=comparison,
            sharpness=sharpness,
            pictures=pictures,
            left_out=left_out,
            sections=_sections(comparison, [*sharpness, *pictures.analyses], left_out),
            facts=_facts(comparison),
            # Both are files of this package and contain no text of a run.
            style=Markup((FOLDER / "report.css").read_text(encoding="utf-8")),  # nosec B704
            script=Markup(script),  # nosec B704
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    return f"{text}\n"


def _sections(comparison: Comparison, sharpness: Sequence[object], left_out: Sequence[str]) -> dict[str, str]:
    """Return the titles of all sections that are not empty, by the names of their templates."""
    sections = {
        "short": ("In short", in_short(comparison)),
        "paper": ("Next to the paper's numbers", comparison.cells),
        "settings": ("SGD and SAM compared", comparison.setting_tables),
        "compute": ("At equal compute", comparison.compute_families),
        "rho": ("Choice of rho", comparison.rho_sweeps),
        "sharpness": ("Sharpness", sharpness),
        "runs": ("Runs", comparison.groups),
        "unfinished": ("Unfinished runs", comparison.interrupted),
        "left-out": ("Left out", left_out),
    }
    return {name: title for name, (title, content) in sections.items() if content}


def _facts(comparison: Comparison) -> dict[str, str]:
    results = [run.result for run in comparison.runs if run.result is not None]
    complete = sum(result["status"] == "complete" for result in results)
    seconds = sum(number(result.get("seconds")) or 0.0 for result in results)
    last_ended = max((str(result.get("ended_at") or "") for result in results), default="")[:16]
    facts = {
        "Complete runs": str(complete),
        "Diverged": str(len(results) - complete),
        "Unfinished": str(len(comparison.interrupted)),
        "Conditions": str(len(comparison.groups)),
        "Settings": str(len(comparison.setting_tables)),
        "Hours of training": f"{seconds / 3600:.1f}",
        "Last ended (UTC)": last_ended.replace("T", " "),
    }
    return {name: text for name, text in facts.items() if text}
