"""Write a report of runs as one HTML file: ours beside the paper's, curves, sharpness, every run.

python scripts/report.py [FOLDER ...] [--out FILE]

Reads files only, so it works without torch, for runs of other machines, and while runs go on. The file
needs no other and no network: it can be sent, opened on a phone, and printed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever is installed

from sam.figures.report_pictures import draw_pictures
from sam.paper.cells import CELLS
from sam.report.comparison import read_comparison
from sam.report.html.page import render_report
from sam.report.sharpness_tables import sharpness_tables


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command line without the program; None takes that of the process.

    Returns:
        The exit status: 0, or 2 with one line on stderr.
    """
    options = _parse(arguments)
    # A terminal that lacks a letter of a path shows a question mark instead of a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        comparison = read_comparison(options.outputs, CELLS)
    except ValueError as error:
        return _fail(str(error))
    for warning in comparison.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    text = render_report(comparison, sharpness_tables(comparison.groups), draw_pictures(comparison))
    out = options.out or options.outputs[0] / "report.html"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # A path may hold what is no letter.
        out.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        return _fail(f"cannot write to {out} ({error.strerror or error}); name another file with --out")
    print(f"wrote {out}")
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
        "--out", type=Path, help="the file to write (default: report.html in the first of outputs)"
    )
    return parser.parse_args(arguments)


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
