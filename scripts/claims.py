"""Test the claims of results/measured/plan.md on the runs that were made for it.

python scripts/claims.py [--runs FILE]
python scripts/claims.py --add FOLDER [FOLDER ...] [--runs FILE]

The table of runs is results/measured/plan/runs.csv. So everybody can repeat the verdicts without training.
--add first writes the rows of all ended runs below the folders into the table. It needs no torch.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever is installed

from sam.config.mistakes import report_mistakes
from sam.record.reader import find_runs
from sam.report.claim_tables import render_outcomes
from sam.report.claims import outcomes
from sam.report.plan_runs import Row, merged, read_rows, row_of, table_text
from sam.system.errors import ConfigError
from sam.system.files import write_text
from sam.system.words import counted

RUNS = Path(__file__).resolve().parents[1] / "results" / "measured" / "plan" / "runs.csv"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: The command-line arguments; None means those of this process.

    Raises:
        ConfigError: If a folder has no ended runs, or a run is in the table with another result.
    """
    options = _parse(arguments)
    rows: list[Row] = list(read_rows(options.runs))
    if options.add:
        rows = merged(rows, _ended(options.add))
        options.runs.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.runs, table_text(rows))
        print(f"wrote {options.runs}: {counted(len(rows), 'run')}\n")
    print(render_outcomes(outcomes(rows)), end="")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="FILE", help="the table of runs")
    parser.add_argument(
        "--add",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="folders that hold run directories, at any depth",
    )
    return parser.parse_args(arguments)


def _ended(folders: Sequence[Path]) -> list[Row]:
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--add {folder}: no such folder; name the folder that holds your runs")
    runs, problems = find_runs(folders)
    for problem in problems:
        print(f"warning: {problem.path}: {problem.reason}", file=sys.stderr)
    rows: list[Row] = [row_of(run) for run in runs if run.result is not None]
    if not rows:
        names = ", ".join(map(str, folders))
        raise ConfigError(f"--add {names}: no ended run; name the folder that holds your runs")
    return rows


if __name__ == "__main__":
    report_mistakes(main)
