"""Compare runs: SGD beside SAM at equal epochs and at equal compute, ours beside the paper's, every rho.

python scripts/compare.py [FOLDER ...] [--out FOLDER] [--no-figure]

Reads files only, so it works without torch, for runs of other machines, and while runs go on.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from sam.report.beside_paper import compare_with_paper, match_paper  # noqa: E402
from sam.report.cells import Cell, read_cells  # noqa: E402
from sam.report.equal_compute import build_families  # noqa: E402
from sam.report.figures import draw_error_curves  # noqa: E402
from sam.report.groups import Group, group_runs  # noqa: E402
from sam.report.markdown import render_comparison  # noqa: E402
from sam.report.markdown_sections import (  # noqa: E402
    render_beside_paper,
    render_families,
    render_sweeps,
)
from sam.report.rho_sweeps import build_sweeps  # noqa: E402
from sam.report.runs import Run, find_runs  # noqa: E402
from sam.report.table import build_blocks  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command line without the program; None takes that of the process.

    Returns:
        The exit status: 0, or 2 with one line on stderr.
    """
    options = _parse(arguments)
    # A terminal that lacks the plus-minus sign shows a question mark instead of a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        runs, warnings = _read(options.outputs)
    except ValueError as error:
        return _fail(str(error))
    groups, copies = group_runs(runs)
    cells, faults = _read_paper()
    warnings += copies + faults
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    text = _render(runs, groups, cells, warnings)
    print(text)
    out = options.out or options.outputs[0]
    try:
        _write(out, text, groups, with_figure=not options.no_figure)
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
        help="folder for comparison.md and comparison.png (default: the first of outputs)",
    )
    parser.add_argument("--no-figure", action="store_true", help="write no comparison.png")
    return parser.parse_args(arguments)


def _read(roots: Sequence[Path]) -> tuple[list[Run], list[str]]:
    for root in roots:
        if not root.is_dir():
            raise ValueError(
                f"no folder {root.absolute()}; name the folder that holds your runs, "
                "or train one first: python train.py"
            )
    runs, problems = find_runs(roots)
    if not runs:
        names = ", ".join(str(root.absolute()) for root in roots)
        found = "".join(f"; {problem.path}: {problem.reason}" for problem in problems)
        raise ValueError(
            f"no readable run (a folder with config.yaml) in {names}{found}; train one first: python train.py"
        )
    return runs, [f"{problem.path}: {problem.reason}" for problem in problems]


def _read_paper() -> tuple[list[Cell], list[str]]:
    try:
        return read_cells(REPOSITORY / "results" / "paper" / "cells.csv"), []
    except (OSError, ValueError) as error:
        return [], [f"the paper's numbers are not shown: {error}"]


def _render(
    runs: Sequence[Run], groups: Sequence[Group], cells: Sequence[Cell], warnings: Sequence[str]
) -> str:
    matches = match_paper(groups, runs, cells)
    sections = [
        render_beside_paper(compare_with_paper(groups, matches, cells)),
        render_families(build_families(groups)),
        render_sweeps(build_sweeps(groups)),
    ]
    interrupted = [run for run in runs if run.result is None]
    return render_comparison(build_blocks(groups, matches), sections, interrupted, warnings)


def _write(out: Path, text: str, groups: Sequence[Group], with_figure: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    table, figure = out / "comparison.md", out / "comparison.png"
    table.write_text(text, encoding="utf-8")
    print(f"wrote {table}")
    if with_figure and draw_error_curves(groups, figure):
        print(f"wrote {figure}")
    elif with_figure:
        print("no figure: no complete run has epochs in its metrics.csv")


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
