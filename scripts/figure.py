"""Draw a figure of the paper, or one like it, from runs: python scripts/figure.py NAME [FOLDER ...].

--list shows the names and the commands that make the runs. Without --preset, the figure shows all ended runs
below the folders (default: outputs). With --preset, it shows only the runs of the preset; the script also
prints which of them are missing and how to make them. The picture is a PNG file, or SVG or PDF if --out ends
in .svg or .pdf.

    python scripts/figure.py fig3-rho --preset small
    python scripts/figure.py rho outputs/cifar10 --out rho.svg

The name batch draws the first training images of epoch 0 and their labels, after augmentation. It takes the
keys of train.py instead of folders:

    python scripts/figure.py batch dataset=cifar10 augmentation=cutout
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever is installed

from sam.config.compose import composed
from sam.config.mistakes import report_mistakes
from sam.paper.cells import CELLS, read_cells
from sam.paper.figure_plan import PLANS, PRESETS, commands_of, read_plans
from sam.paper.figure_runs import ExistingRuns, find_existing, in_order_of_use
from sam.record.reader import Run, find_runs
from sam.report.groups import group_runs
from sam.report.paper_rows import match_paper
from sam.system.errors import ConfigError
from sam.system.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VECTORS = (".svg", ".pdf")
FIGURES = read_plans(PLANS)
MAX_NAMED = 5  # the message names this many missing runs


def main() -> None:
    """Run the command."""
    options = _parse()
    if options.list:
        _list()
    elif options.name == "batch":
        _draw_batch(options)
    else:
        _draw(options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=["batch", *FIGURES], metavar="NAME")
    parser.add_argument("words", nargs="*", metavar="FOLDER | KEY=VALUE")
    parser.add_argument("--out", type=Path, help="default: NAME.png in the current folder")
    parser.add_argument("--preset", choices=PRESETS, help="draw only the runs of this preset")
    parser.add_argument("--seeds", type=_seeds, metavar="SEED[,SEED]", help="draw only runs with these seeds")
    parser.add_argument("--list", action="store_true", help="print the figures and how to make their runs")
    options = parser.parse_intermixed_args()
    if options.name is None and not options.list:
        parser.error(f"name a figure: batch, {', '.join(FIGURES)}; --list explains them")
    if options.name == "batch" and (options.preset or options.seeds):
        parser.error("batch needs a config and no runs, so it takes neither --preset nor --seeds")
    return options


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(word) for word in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed are whole numbers >= 0, such as 0,1,2")
    return seeds


def _list() -> None:
    print("batch\n  the first training images after augmentation; add keys of train.py")
    for name, plan in FIGURES.items():
        print(f"{name}\n  {plan.shows}")
        for preset_name, preset in plan.presets.items():
            print(f"  {preset_name}: {counted(sum(part.num_runs() for part in preset.parts), 'run')}")
            for command in commands_of(name, plan, preset):
                print(f"    {command}")


def _draw_batch(options: argparse.Namespace) -> None:
    config = composed(options.words)
    from sam.run.training_batch import draw_batch

    path = options.out or Path(f"batch-{config.dataset.name}-{config.augmentation.name}.png")
    _save(draw_batch(config), path)


def _draw(options: argparse.Namespace) -> None:
    name, plan = options.name, FIGURES[options.name]
    runs = _runs(options)
    existing = _existing_runs(options, runs) if options.preset else None
    if existing is not None:
        runs = existing.runs
    groups, copies = group_runs(in_order_of_use(plan, runs))
    cells = read_cells(CELLS)
    from sam.figures.catalogue import draw

    try:
        figure = draw(name, groups, match_paper(groups, runs, cells), cells)
    except ValueError as error:
        advice = _advice(options, existing or _existing_runs(options, runs))
        raise ConfigError("\n".join([f"{name}: {error}", *advice])) from error
    if existing is None and not groups:  # figures of the paper's own numbers need no runs
        existing = _existing_runs(options, runs)
    if existing is None:
        for warning in copies:
            print(f"warning: {warning}", file=sys.stderr)
    elif existing.commands:
        print("\n".join(_shortfall(existing) + _advice(options, existing)))
    _save(figure, options.out or Path(f"{name}.png"))


def _existing_runs(options: argparse.Namespace, runs: list[Run]) -> ExistingRuns:
    """Return the existing and missing runs of the chosen preset; without --preset, of the preset small."""
    plan = FIGURES[options.name]
    preset = plan.presets[options.preset or "small"]
    if options.seeds:
        preset = preset.with_seeds(options.seeds)
    return find_existing(options.name, plan, preset, runs, (options.words or ["outputs"])[0])


def _runs(options: argparse.Namespace) -> list[Run]:
    """Return the ended runs with the chosen folders and seeds; none if the folder outputs does not exist."""
    for folder in options.words:
        if not Path(folder).is_dir():
            raise ConfigError(f"no folder {folder}; name the folders that hold your runs")
    runs, problems = find_runs(
        [Path(folder) for folder in options.words or ["outputs"] if Path(folder).is_dir()]
    )
    for problem in problems:
        print(f"warning: {problem.path}: {problem.reason}", file=sys.stderr)
    return [
        run for run in runs if run.result and run.result["seed"] in (options.seeds or [run.result["seed"]])
    ]


def _shortfall(existing: ExistingRuns) -> list[str]:
    lines = [
        f"{existing.num_planned - len(existing.missing)} of {counted(existing.num_planned, 'run')} have ended"
    ]
    for what, directories in (("missing", existing.missing), ("not analysed", existing.bare)):
        lines += [f"  {what}: {directory}" for directory in directories[:MAX_NAMED]]
        if len(directories) > MAX_NAMED:
            lines.append(f"  and {len(directories) - MAX_NAMED} more")
    return lines


def _advice(options: argparse.Namespace, existing: ExistingRuns) -> list[str]:
    """Return the commands that make the missing runs, and for the preset paper a cheaper one."""
    lines = [f"commands for what the preset {options.preset or 'small'} lacks:"] if existing.commands else []
    lines += [f"  {command}" for command in existing.commands]
    if options.preset == "paper":
        lines.append(f"much cheaper: python scripts/figure.py {options.name} --preset small")
    return lines


def _save(figure: "Figure", path: Path) -> None:
    kind = path.suffix.lower()
    try:
        figure.savefig(path, format=kind[1:] if kind in VECTORS else "png")
    except OSError as error:
        raise ConfigError(
            f"--out={path}: {error.strerror or error}; name a file that can be written"
        ) from error
    print(f"wrote {path}")


if __name__ == "__main__":
    report_mistakes(main)
