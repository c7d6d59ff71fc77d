"""Compare runs: SGD and SAM at equal epochs and at equal compute, the paper's numbers, all values of rho.

python scripts/compare.py [FOLDER ...] [--out FOLDER] [--no-figure]
python scripts/compare.py [FOLDER ...] --json [FILE]
python scripts/compare.py [FOLDER ...] --diff A B

It only reads files. So it works without torch, for runs of other machines, and during training.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever is installed

from sam.figures.curves import draw_error_curves
from sam.paper.cells import CELLS
from sam.report.as_json import comparison_data
from sam.report.comparison import Comparison, read_comparison
from sam.report.config_diff import differences, find_sides, render_differences
from sam.report.groups import Group
from sam.report.markdown import render_comparison
from sam.report.markdown_sections import render_families, render_paper_rows, render_sweeps

STANDARD_OUTPUT = "-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command-line arguments; None means those of this process.

    Returns:
        The exit code: 0, or 2 with one line on stderr.
    """
    options = _parse(arguments)
    # Without this, a terminal that cannot show the plus-minus sign would cause a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        if options.diff:
            first, second = find_sides(options.diff, options.outputs)
            print(render_differences(first, second, differences(first, second)))
            return 0
        comparison = read_comparison(options.outputs, CELLS)
    except ValueError as error:
        return _fail(str(error))
    for warning in comparison.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.json:
        return _write_json(comparison, options.json)
    text = _render(comparison)
    print(text)
    out = options.out or options.outputs[0]
    try:
        _write(out, text, comparison.groups, with_figure=not options.no_figure)
    except OSError as error:
        reason = error.strerror or error
        return _fail(f"cannot write to {out} ({reason}); name another folder with --out")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "outputs",
        nargs="*",
        type=Path,
        default=[Path("outputs")],
        help="folders that hold run directories, at any depth (default: outputs)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for comparison.md and comparison.png (default: the first FOLDER)",
    )
    parser.add_argument("--no-figure", action="store_true", help="do not write comparison.png")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--json",
        nargs="?",
        const=STANDARD_OUTPUT,
        metavar="FILE",
        help="write all data of the tables as JSON, and nothing else, to FILE or to standard output",
    )
    instead.add_argument(
        "--diff",
        nargs=2,
        metavar=("A", "B"),
        help="show only how two configs differ; A and B are run directories or identities of conditions",
    )
    return parser.parse_args(arguments)


def _render(comparison: Comparison) -> str:
    sections = [
        render_paper_rows(comparison.paper_rows),
        render_families(comparison.compute_families),
        render_sweeps(comparison.rho_sweeps),
    ]
    return render_comparison(comparison.setting_tables, sections, comparison.interrupted, comparison.warnings)


def _write(out: Path, text: str, groups: Sequence[Group], with_figure: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    table, figure = out / "comparison.md", out / "comparison.png"
    table.write_text(text, encoding="utf-8")
    print(f"wrote {table}")
    if not with_figure:
        return
    try:
        drawn = draw_error_curves(groups)
    except ValueError as error:
        print(f"no figure: {error}")
        return
    drawn.savefig(figure, format="png")
    print(f"wrote {figure}")


def _write_json(comparison: Comparison, target: str) -> int:
    text = json.dumps(comparison_data(comparison), indent=2, allow_nan=False)
    if target == STANDARD_OUTPUT:
        print(text)
        return 0
    try:
        Path(target).write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        return _fail(
            f"cannot write to {target} ({reason}); name a file after --json, and folders of runs before it"
        )
    return 0


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
