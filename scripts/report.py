"""Write a report of runs as one HTML file: our numbers and the paper's, curves, sharpness, all runs.

python scripts/report.py [FOLDER ...] [--out FILE]

It only reads files. So it works without torch, for runs of other machines, and during training. The HTML file
needs no other file and no network: you can send it, open it on a phone, and print it.
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
        arguments: The command-line arguments; None means those of this process.

    Returns:
        The exit code: 0, or 2 with one line on stderr.
    """
    options = _parse(arguments)
    # Without this, a terminal that cannot show a letter of a path would cause a traceback.
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
        # A path may contain bytes that are not valid text.
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
        "--out", type=Path, help="the file to write (default: report.html in the first FOLDER)"
    )
    return parser.parse_args(arguments)


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
