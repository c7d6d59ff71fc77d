"""The pictures of a report: the comparisons with the most runs, and single runs; both limited in number."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from sam.figures.analysis import draw_analysis
from sam.figures.curves import draw_error_curves
from sam.figures.embedded import embed, embed_png
from sam.figures.sharpness import sharpness_by_condition
from sam.record.analyses import NAMES, Analysis, read_analyses
from sam.report.comparison import Comparison
from sam.report.families import Family, families
from sam.report.groups import Group
from sam.report.html.page import Picture, Pictures

# Each picture takes a tenth of a second to draw and fills about a screen.
MAX_CURVES = 12
MAX_SHARPNESS = 6
MAX_ANALYSES = 12
WIDE_INCHES = 8
PNG_START = b"\x89PNG\r\n\x1a\n"
KINDS = {
    "sharpness": "m-sharpness",
    "hessian": "Spectrum of the Hessian",
    "landscape": "Loss around the weights",
    "second_order": "Gradients of first- and second-order SAM",
}


def draw_pictures(comparison: Comparison) -> Pictures:
    """Draw the pictures of a report.

    Args:
        comparison: The runs and their comparison.
    """
    settings = sorted(
        families(group for group in comparison.groups if group.complete), key=_interest, reverse=True
    )
    sharp = [family for family in settings if any(_files(group, "sharpness") for group in family.groups)]
    left_out: list[str] = []

    def draw(
        what: str, function: Callable[[Sequence[Group]], Figure], found: Sequence[Family], most: int
    ) -> dict[str, Picture]:
        drawn: dict[str, Picture] = {}
        for family in found[:most]:
            label = f"{what}: {family.title}"
            try:
                figure = function(family.groups)
            except ValueError as error:
                left_out.append(f"{label}: {error}")
            else:
                drawing = embed(figure, label, f"{function.__name__}-{len(drawn)}")
                drawn[family.setting.key] = Picture(drawing, f"{what}.", _is_wide(figure))
        if len(found) > most:
            left_out.append(f"{what}: not drawn for {len(found) - most} settings with fewer runs")
        return drawn

    return Pictures(
        curves=draw("Error against the epoch", draw_error_curves, settings, MAX_CURVES),
        sharpness=draw("m-sharpness by condition", sharpness_by_condition, sharp, MAX_SHARPNESS),
        analyses=_draw_runs([group for family in settings for group in family.groups], left_out),
        left_out=left_out,
    )


def _interest(family: Family) -> tuple[int, int]:
    """Return a sort key: the settings with both methods and the most runs have the highest."""
    groups = family.groups
    return len({group.is_sam for group in groups}), sum(len(group.complete) for group in groups)


def _draw_runs(groups: Sequence[Group], left_out: list[str]) -> list[Picture]:
    """Draw, for one run of each condition, the last analysis of each kind."""
    pictures: list[Picture] = []
    for group in groups:
        for name in NAMES:
            if len(pictures) < MAX_ANALYSES and (files := _files(group, name)):
                made, problems = read_analyses(files[0].parent.parent, name)
                left_out += [f"{problem.path}: {problem.reason}" for problem in problems]
                for analysis in made[-1:]:
                    try:
                        pictures.append(_draw_run(group, analysis, len(pictures)))
                    except ValueError as error:
                        left_out.append(str(error))
    num_files = sum(len(_files(group, name)) for group in groups for name in NAMES)
    if num_files > len(pictures):
        left_out.append(
            f"{num_files - len(pictures)} analyses are not drawn; for each kind and condition, the report "
            f"shows the last analysis of one run, and {MAX_ANALYSES} pictures at most; the folder analysis "
            "of each run has all its pictures"
        )
    return pictures


def _draw_run(group: Group, analysis: Analysis, number: int) -> Picture:
    run = analysis.path.parent.parent
    label = f"{KINDS[analysis.name]}, {group.label}, {run.name}, after epoch {analysis.epoch}"
    saved = analysis.path.with_suffix(".png")
    # A surface has thousands of pieces, so its SVG would be large.
    if analysis.settings.get("dimensions") == 2 and saved.is_file():
        content = saved.read_bytes()
        # The file may be a link to a private file, which must not get into the report.
        if content.startswith(PNG_START):
            return Picture(embed_png(content, label), label)
    figure = draw_analysis(analysis)
    return Picture(embed(figure, label, f"run-{number}"), label, _is_wide(figure))


def _is_wide(figure: Figure) -> bool:
    """Return whether a figure has two panels next to each other, and needs the width of two pictures."""
    return bool(figure.get_figwidth() > WIDE_INCHES)


def _files(group: Group, name: str) -> list[Path]:
    return [
        path
        for run in group.complete
        for path in sorted((run.directory / "analysis").glob(f"{name}-epoch*.json"))
    ]
