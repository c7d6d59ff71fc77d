"""Repeat the paper's tables: python scripts/reproduce.py TABLE... [--dataset NAME] [KEY=VALUE...].

table1 and the others have the paper's conditions (results/paper/cells.csv). one_gpu/table1 to one_gpu/table5
stand for them on one GPU, and small/table1 to small/table5 on two CPU cores (configs/tiers.yaml).

It trains the runs of the chosen conditions with all their seeds, one after the other. It skips ended runs and
continues interrupted ones. If a run fails, the next one starts.

--list     prints each condition with its commands, and with the paper's number if it has one
--dry-run  times a few updates of each model on this machine, on random images, and estimates the hours of all
           runs
--smoke    tries each condition for two updates on random images, with two micro-batches of at most 4 images

The keys are those of train.py and apply to all runs, such as outputs=FOLDER or recipe=text. With
hydra/launcher=ray or submitit_slurm, several runs train at once, as in a sweep of train.py. A filter takes
one value or several with commas.

    python scripts/reproduce.py table1 --list
    python scripts/reproduce.py table1 --model wrn_28_10 --epochs 200 --dry-run
    python scripts/reproduce.py table4 --noise 40 --method sgd,sam --seeds 3 dataset.root=/data
    python scripts/reproduce.py one_gpu/table1
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever is installed

from sam.config.compose import composed
from sam.config.composer import quoted, write_list
from sam.config.mistakes import explain
from sam.paper.cells import CELLS, Cell, read_cells
from sam.paper.conditions import TIERS, Condition, TierCondition, read_tiers
from sam.paper.runs import PlannedRun, alternatives, runs_of, unique
from sam.record.directory import result_if_any
from sam.run.sweep import summary
from sam.system.errors import ConfigError
from sam.system.signals import STOPS
from sam.system.words import counted

ROOT = Path(__file__).resolve().parents[1]
# The tables of the main text; the appendix repeats and varies them.
MAIN_TABLES = ("table1", "table2", "table3", "table4", "table5")
# Exit codes of train.py after a stop signal: 128 + number if it saved its state, -number if it was too early.
STOPPED = [code for number in STOPS for code in (128 + number, -number)]
AnyCondition = Cell | TierCondition
FILTERS = ("dataset", "model", "augmentation", "method", "epochs", "noise")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 if a run failed, or 2 for a mistake on the command line."""
    options = _parse(arguments)
    tables = [word for word in options.words if "=" not in word]
    overrides = [word for word in options.words if "=" in word]
    launcher = [word for word in overrides if word.lstrip("+~").startswith("hydra")]
    overrides = [word for word in overrides if word not in launcher]
    try:
        cells = _chosen([*read_cells(CELLS), *read_tiers(TIERS)], tables, options)
        if seeds := [word for word in overrides if word.startswith("seed=")]:
            raise ConfigError(f"{seeds[0]}: each condition has its own seeds; set how many with --seeds N")
        composed(
            [*cells[0].overrides, *overrides]
        )  # reports a mistake in the overrides before any run starts
        if options.list:
            _list(cells, options.seeds, overrides)
            return 0
        if options.smoke:
            from sam.run.rehearsal import smoke  # loads torch

            return smoke(cells, overrides)
        plan = {cell.name: runs_of(cell, _seeds(cell, options.seeds), overrides) for cell in cells}
    except BrokenPipeError:  # the reader of stdout, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if isinstance(error, OSError | ValueError) or type(error).__module__.startswith(
            ("hydra", "omegaconf")
        ):
            print(f"error: {explain(error)}", file=sys.stderr)
            return 2
        raise
    if options.dry_run:
        from sam.run.rehearsal import dry_run

        return dry_run(plan)
    runs = unique(run for runs in plan.values() for run in runs)
    if not launcher:
        return _train(runs)
    return _launch(runs, [*launcher, *(word for word in overrides if word.startswith("outputs="))])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="TABLE | KEY=VALUE",
        help="table1 to table5, table8 to table11, all (tables 1 to 5), one_gpu/table1, small/table1, ...; "
        "keys of train.py",
    )
    for name in FILTERS:
        parser.add_argument(
            f"--{name}", metavar="NAME[,NAME]", help="only these conditions, as named by --list"
        )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="number of seeds (default: 5 as in the paper, 20 in Table 11; 3 for one_gpu and small)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--list", action="store_true", help="print the conditions, train nothing")
    how.add_argument(
        "--dry-run", action="store_true", help="print the estimated hours on this machine, train nothing"
    )
    how.add_argument("--smoke", action="store_true", help="try each condition for two updates")
    options = parser.parse_intermixed_args(arguments)
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"--seeds {options.seeds}: allowed is a number >= 1")
    return options


def _chosen(
    cells: Sequence[AnyCondition], tables: list[str], options: argparse.Namespace
) -> Sequence[AnyCondition]:
    """Return the conditions of the tables that pass every filter.

    Raises:
        ConfigError: If a table or a name is unknown, or nothing passes.
    """
    known = {_table(cell): None for cell in cells}
    for table in tables:
        if table not in (*known, "all"):
            raise ConfigError(f"{table}: there is no such table; allowed is {', '.join(known)}, all")
    wanted = {*tables, *(MAIN_TABLES if "all" in tables else ())}
    every, cells = cells, [cell for cell in cells if _table(cell) in wanted]
    if not cells:
        raise ConfigError(f"name a table: {', '.join(known)}, or all")
    for name in FILTERS:
        if getattr(options, name) is None:
            continue
        allowed = getattr(options, name).split(",")
        present = dict.fromkeys(_property(cell, name) for cell in cells)
        if unknown := [value for value in allowed if value not in present]:
            names = ", ".join(filter(None, present))
            printed = (cell for cell in every if isinstance(cell, Cell))  # others must be composed first
            having = [_table(cell) for cell in printed if _property(cell, name) == unknown[0]]
            raise ConfigError(
                f"--{name} {unknown[0]}: none of the conditions chosen so far has it; "
                + (f"allowed is {names}" if names else f"leave --{name} out")
                + (f"; {unknown[0]} is in {', '.join(dict.fromkeys(having))}" if having else "")
            )
        cells = [cell for cell in cells if _property(cell, name) in allowed]
    return cells


def _table(cell: Condition) -> str:
    return f"table{cell.table}" if isinstance(cell, Cell) else cell.table


def _property(cell: AnyCondition, name: str) -> str:
    """Return the value of a condition that a filter compares."""
    if name == "method":
        return cell.method
    if name == "epochs":
        return str(cell.values["epochs"])
    if name == "noise":
        parts = cell.name.split("/")
        return next((part.removeprefix("noise") for part in parts if part.startswith("noise")), "")
    return str(cell.values[f"{name}.name"])


def _seeds(cell: Condition, num_seeds: int | None) -> range:
    return range(num_seeds or cell.num_seeds)


def _list(cells: Iterable[Condition], num_seeds: int | None, overrides: Sequence[str]) -> None:
    """Print the name, the printed error if there is one, and the commands of every condition."""
    num_cells = num_runs = 0
    for cell in cells:
        seeds = _seeds(cell, num_seeds)
        print(cell.name)
        if isinstance(cell, Cell):
            top5 = f", top-5 {cell.top5.text} %" if cell.top5 else ""
            doubt = f" (doubtful: {cell.doubt})" if cell.doubt else ""
            print(f"  printed: {cell.top1.text} %{top5}{doubt}")
        for command in _commands(cell, seeds, overrides):
            print(f"  {command}")
        num_cells += 1
        with_sources = 2 if cell.labels_from else 1
        num_runs += len(seeds) * max(1, len(alternatives(cell, overrides))) * with_sources
    totals = f"{counted(num_cells, 'condition')}, {counted(num_runs, 'run')}"
    print(f"{totals} (a run that two conditions share is counted twice)")


def _commands(cell: Condition, seeds: range, overrides: Sequence[str]) -> list[str]:
    """Return the sweeps over all seeds: one sweep, or for bootstrapping two sweeps per alternative."""
    sweep = "seed=" + ",".join(map(str, seeds))
    if not cell.labels_from:
        left = alternatives(cell, overrides)
        keys = {text.partition("=")[0] for text in left}
        choices = [f"{key}=" + ",".join(text.partition("=")[2] for text in left) for key in keys]
        return [_command([*cell.overrides, *choices, *overrides, sweep])]
    commands = []
    for source, run in zip(*[iter(runs_of(cell, seeds[:1], overrides))] * 2, strict=True):
        before, _, after = quoted(str(source.directory.absolute())).rpartition("seed0-")
        labels = f"dataset.relabel_from={before}seed${{seed}}-{after}"
        dropped = ("seed=", "dataset.relabel_from=")
        for planned, more in ((source, []), (run, [labels])):
            shared = [text for text in planned.overrides if not text.startswith(dropped)]
            commands.append(_command([*shared, *more, sweep]))
    return commands


def _command(overrides: Sequence[str]) -> str:
    return shlex.join(["python", "train.py", "-m", *overrides])


def _train(runs: Sequence[PlannedRun]) -> int:
    """Train the runs that have not ended, one after the other, then print a summary of all runs."""
    failed: list[PlannedRun] = []
    for number, run in enumerate(runs, start=1):
        print(f"[{number} of {len(runs)}] {run.directory}", flush=True)
        code = 0
        if run.config.force or result_if_any(run.directory) is None:
            code = _run(run.overrides)
            if code in STOPPED:
                print(
                    "stopped; the same command goes on" + (" without force=true" if run.config.force else "")
                )
                return code if code > 0 else 128 - code
        if code or result_if_any(run.directory) is None:
            failed.append(run)
    return _conclude(runs, failed)


def _launch(runs: Sequence[PlannedRun], sweep: Sequence[str]) -> int:
    """Train the runs that have not ended in sweeps of train.py, first those that predict labels for others.

    Args:
        runs: All planned runs.
        sweep: The overrides for the launcher and for outputs.
    """
    waves = [
        [run for run in runs if (run.config.dataset.relabel_from is not None) == is_second]
        for is_second in (False, True)
    ]
    for wave in filter(None, waves):
        folder = Path(wave[0].config.outputs) / ".multirun"
        code = _run(["-m", write_list((run.overrides for run in wave), folder, "reproduce"), *sweep])
        if code in STOPPED:
            return code if code > 0 else 128 - code
        if code == 2 and not any(result_if_any(run.directory) for run in wave):
            return code  # the launcher refused the sweep and has printed the reason
    return _conclude(runs, [run for run in runs if result_if_any(run.directory) is None])


def _conclude(runs: Sequence[PlannedRun], failed: Sequence[PlannedRun]) -> int:
    """Print a summary of all runs; return the exit code."""
    lost = {run.directory for run in failed}
    print(summary((run.directory for run in runs if run.directory not in lost), len(failed)))
    for run in failed:
        print(f"  failed; run it alone: {shlex.join(['python', 'train.py', *run.overrides])}")
    outputs = sorted({run.config.outputs for run in runs})
    print(f"compare: {shlex.join(['python', 'scripts/compare.py', *outputs])}")
    return 1 if failed else 0


def _run(overrides: Sequence[str]) -> int:
    """Run train.py in a new process; return its exit code, or 130 after Ctrl-C."""
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *overrides])
    # The terminal sends SIGINT to the new process too, but not these signals.
    numbers = [number for number in STOPS if number != signal.SIGINT]
    before = [signal.signal(number, lambda sent, _: process.send_signal(sent)) for number in numbers]
    interrupted = False
    try:
        while True:
            try:
                code = process.wait()
                return 130 if interrupted else code
            except KeyboardInterrupt:  # the process gets the signal too, and needs time to save its state
                interrupted = True
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
