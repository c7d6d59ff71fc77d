"""What each figure takes: commands of train.py that make its runs, and what evaluate.py adds to them.

A sweep is written as its command line; its runs are known from that, since a run's identity is.
sam/paper/figure_presets.py lists them. Imports no torch.
"""

import dataclasses
import itertools
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from sam.config.compose import composed
from sam.config.composer import quoted
from sam.config.schema import TrainConfig
from sam.paper.cells import CELLS, Cell, read_cells
from sam.paper.runs import alternatives, runs_of
from sam.record.analyses import read_analyses
from sam.record.evaluations import read_calibration
from sam.record.identity import identity, path_of
from sam.record.reader import Run

METHODS = ("sgd", "sam")


@dataclass(frozen=True)
class Sweep:
    """One command of train.py: every combination of comma-separated values.

    Attributes:
        overrides: What decides the runs, seeds aside.
        seeds: Of every combination.
        looks: What train.py is told besides, to look at the networks while it trains them.
    """

    overrides: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    looks: tuple[str, ...] = ()

    def num_runs(self) -> int:
        """Return how many runs it makes."""
        return len(self.seeds) * len(list(self._combinations()))

    def configs(self) -> list[TrainConfig]:
        """Return the config of each run."""
        return [
            dataclasses.replace(_composed(overrides), seed=seed)
            for overrides in self._combinations()
            for seed in self.seeds
        ]

    def command(self, outputs: str) -> str:
        """Return the command line that makes its runs in a folder."""
        seeds = "seed=" + ",".join(map(str, self.seeds))
        return shlex.join(
            ["python", "train.py", "-m", *self.overrides, seeds, *self.looks, *_outputs_key(outputs)]
        )

    def _combinations(self) -> Iterator[tuple[str, ...]]:
        choices = []
        for override in self.overrides:
            key, _, values = override.partition("=")
            choices.append([f"{key}={value}" for value in values.split(",")])
        return itertools.product(*choices)


@dataclass(frozen=True)
class TableRuns:
    """The conditions with and without SAM of a table of the paper, as scripts/reproduce.py runs them.

    Attributes:
        table: Its number.
        seeds: Of every condition; the first so many.
    """

    table: str
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    def num_runs(self) -> int:
        """Return how many runs it makes."""
        return len(self.seeds) * sum(max(1, len(alternatives(cell, ()))) for cell in self._cells())

    def configs(self) -> list[TrainConfig]:
        """Return the config of each run."""
        return [planned.config for cell in self._cells() for planned in runs_of(cell, self.seeds)]

    def command(self, outputs: str) -> str:
        """Return the command line that makes its runs in a folder."""
        words = [f"table{self.table}", "--method", ",".join(METHODS), "--seeds", str(max(self.seeds) + 1)]
        return shlex.join(["python", "scripts/reproduce.py", *words, *_outputs_key(outputs)])

    def _cells(self) -> list[Cell]:
        return [cell for cell in _cells() if cell.table == self.table and cell.method in METHODS]


class Preset(NamedTuple):
    """The runs of a figure on one scale.

    Attributes:
        parts: The commands that make them; two may share runs.
        evaluate: What evaluate.py is told of them afterwards; None where it has nothing to do.
    """

    parts: tuple[Sweep | TableRuns, ...]
    evaluate: tuple[str, ...] | None = None

    def with_seeds(self, seeds: Sequence[int]) -> "Preset":
        """Return the same preset for other seeds."""
        parts = tuple(dataclasses.replace(part, seeds=tuple(seeds)) for part in self.parts)
        return self._replace(parts=parts)


class FigurePlan(NamedTuple):
    """What one figure takes.

    Attributes:
        line: What it shows.
        presets: By name: "small", which two CPU cores finish, and "paper".
        needs: What must lie in the directory of a run: the name of an analysis, or "calibration"; "" where
            training leaves enough.
        settings: What such an analysis must have been asked for.
    """

    line: str
    presets: Mapping[str, Preset]
    needs: str = ""
    settings: Mapping[str, Any] = MappingProxyType({})

    @property
    def shows_training(self) -> bool:
        """Whether train.py must look at the networks while it trains them; else the trained ones count."""
        return bool(self.needs) and all(preset.evaluate is None for preset in self.presets.values())

    def folder(self, name: str, outputs: str) -> str:
        """Return the folder below the outputs in which runs for the figure of this name are made."""
        return str(Path(outputs, name)) if self.shows_training else outputs


class Stock(NamedTuple):
    """What there is of the runs of a preset.

    Attributes:
        runs: Those that have ended, of two copies the one with more in its directory first.
        num_planned: How many there should be.
        missing: The directories of those that have not, as the commands would make them.
        bare: The directories of ended ones that lack what the figure needs.
        commands: What makes all that is missing, in this order.
    """

    runs: list[Run]
    num_planned: int
    missing: list[Path]
    bare: list[Path]
    commands: list[str]


def take_stock(name: str, plan: FigurePlan, preset: Preset, runs: Iterable[Run], outputs: str) -> Stock:
    """Hold the runs that were found against those of a preset.

    What train.py looks at while it trains cannot be had of a run that has ended, and to start that anew would
    delete what others need of it: such sweeps have a folder of their own below the outputs.

    Args:
        name: Of the figure.
        plan: Of the figure.
        preset: One of its presets, perhaps for other seeds.
        runs: All that were found, ended or not.
        outputs: The folder in which the commands shall make runs.
    """
    found: dict[tuple[str, int], list[Run]] = {}
    for run in in_order_of_use(plan, runs):
        if run.result is not None:
            found.setdefault((run.result["identity"], run.result["seed"]), []).append(run)
    folder = plan.folder(name, outputs)
    fewest = 2 if plan.shows_training else 1
    planned: dict[tuple[str, int], Path] = {}
    commands, bare = [], []
    for part in preset.parts:
        keys = {(identity(config), config.seed): config for config in part.configs()}
        own = {key: path_of(dataclasses.replace(config, outputs=folder)) for key, config in keys.items()}
        planned |= own
        ended = [found[key][0] for key in own if key in found]
        lacking = [run.directory for run in ended if plan.needs and num_looks(plan, run) < fewest]
        bare += lacking
        if len(ended) < len(own) or (lacking and plan.shows_training):
            commands.append(part.command(folder))
    missing = [directory for key, directory in planned.items() if key not in found]
    if preset.evaluate is not None and (missing or bare):
        commands.append(_evaluate_command(preset.evaluate, [*missing, *bare]))
    chosen = [run for key in planned for run in found.get(key, [])]
    return Stock(chosen, len(planned), missing, list(dict.fromkeys(bare)), commands)


def in_order_of_use(plan: FigurePlan, runs: Iterable[Run]) -> list[Run]:
    """Return runs, those first that have most of what a figure needs: of two copies the first counts."""
    return sorted(runs, key=lambda run: -num_looks(plan, run))


def num_looks(plan: FigurePlan, run: Run) -> int:
    """Return how often a run was looked at in the way and at the moment that the figure needs."""
    epochs = run.config["epochs"]
    if plan.needs == "calibration":
        splits = ("test", "validation")
        return sum(read_calibration(run.directory, split, epochs) is not None for split in splits)
    made = read_analyses(run.directory, plan.needs)[0] if plan.needs else []
    return sum(
        (plan.shows_training or look.epoch == epochs) and plan.settings.items() <= look.settings.items()
        for look in made
    )


def commands_of(name: str, plan: FigurePlan, preset: Preset) -> list[str]:
    """Return all commands of a preset, for the default folder of runs, without composing a config."""
    commands = [part.command(plan.folder(name, "outputs")) for part in preset.parts]
    if preset.evaluate is not None:
        commands.append(shlex.join(["python", "evaluate.py", "run=RUN_DIRECTORY", *preset.evaluate]))
    return commands


def _evaluate_command(words: Sequence[str], directories: Iterable[Path]) -> str:
    # All seeds of a method, and what is in there already is not done again.
    folders = sorted({str(directory.parent) for directory in directories})
    sweep = ["-m"] if len(folders) > 1 else []
    return shlex.join(["python", "evaluate.py", *sweep, "run=" + ",".join(map(quoted, folders)), *words])


def _outputs_key(outputs: str) -> list[str]:
    return [] if outputs == "outputs" else [f"outputs={quoted(outputs)}"]


@cache
def _composed(overrides: tuple[str, ...]) -> TrainConfig:
    return composed(overrides)


@cache
def _cells() -> list[Cell]:
    return read_cells(CELLS)
