"""The plan of each figure: the commands that train its runs, and the analyses that evaluate.py adds.

configs/figures.yaml lists the plans. The identities and directories of the runs follow from the commands.
Imports no torch.
"""

import dataclasses
import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml

from sam.config.compose import CONFIGS
from sam.config.composer import composed_quickly, quoted
from sam.config.schema import TrainConfig
from sam.paper.cells import CELLS, Cell, read_cells
from sam.paper.runs import alternatives, runs_of

PLANS = CONFIGS / "figures.yaml"
METHODS = ("sgd", "sam")
PRESETS = ("small", "one_gpu", "paper")


@dataclass(frozen=True)
class SweepRuns:
    """The runs of one command of train.py: every combination of comma-separated values.

    Attributes:
        overrides: The overrides of the command, without seed and analysis.
        seeds: The seeds of every combination.
        looks: The overrides of the analysis during training, such as analysis=hessian.
    """

    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    looks: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "SweepRuns":
        """Read the overrides of a command, such as "optimizer=sgd,sam seed=0,1 analysis=hessian"."""
        words = text.split()
        (seeds,) = (word.removeprefix("seed=").split(",") for word in words if word.startswith("seed="))
        looks = tuple(word for word in words if word.startswith("analysis"))
        overrides = tuple(word for word in words if not word.startswith(("seed=", "analysis")))
        return cls(overrides, tuple(map(int, seeds)), looks)

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
    """The SGD and SAM conditions of a table of the paper, as scripts/reproduce.py runs them.

    Attributes:
        table: The number of the table.
        seeds: The seeds of every condition, starting at 0.
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
    """The runs of a figure at one scale.

    Attributes:
        parts: The commands that train the runs; two commands may share runs.
        evaluate: The overrides of evaluate.py for the trained networks; None if it is not needed.
    """

    parts: tuple[SweepRuns | TableRuns, ...]
    evaluate: tuple[str, ...] | None = None

    def with_seeds(self, seeds: Sequence[int]) -> "Preset":
        """Return the same preset for other seeds."""
        parts = tuple(dataclasses.replace(part, seeds=tuple(seeds)) for part in self.parts)
        return self._replace(parts=parts)


class FigurePlan(NamedTuple):
    """The plan of one figure.

    Attributes:
        shows: What the figure shows, in one line.
        presets: The presets by name: "small" for two CPU cores, "one_gpu", and "paper".
        needs: What each run directory must hold in addition to the training logs: the name of an analysis,
            "calibration", or "" for nothing.
        settings: The settings that this analysis must have.
    """

    shows: str
    presets: Mapping[str, Preset]
    needs: str = ""
    settings: Mapping[str, Any] = MappingProxyType({})

    @property
    def shows_training(self) -> bool:
        """Whether train.py must make the analyses during training; else evaluate.py makes them after it."""
        return bool(self.needs) and all(preset.evaluate is None for preset in self.presets.values())

    def folder(self, name: str, outputs: str) -> str:
        """Return the folder, in the outputs, for the runs of the figure with this name."""
        return str(Path(outputs, name)) if self.shows_training else outputs


def read_plans(path: Path) -> dict[str, FigurePlan]:
    """Return the plan of every figure, by name.

    Args:
        path: A file such as configs/figures.yaml, whose header explains the keys.
    """
    plans = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: _parse_plan(**fields) for name, fields in plans.items()}


def commands_of(name: str, plan: FigurePlan, preset: Preset) -> list[str]:
    """Return all commands of a preset, for the default outputs folder; fast, since no config is composed."""
    commands = [part.command(plan.folder(name, "outputs")) for part in preset.parts]
    if preset.evaluate is not None:
        commands.append(shlex.join(["python", "evaluate.py", "run=RUN_DIRECTORY", *preset.evaluate]))
    return commands


def _parse_plan(**fields: Any) -> FigurePlan:
    presets = {name: _parse_preset(**fields.pop(name)) for name in PRESETS}
    return FigurePlan(presets=presets, **fields)


def _parse_preset(runs: Sequence[str | Mapping[str, Any]], evaluate: str | None = None) -> Preset:
    parts = tuple(SweepRuns.parse(part) if isinstance(part, str) else TableRuns(**part) for part in runs)
    return Preset(parts, None if evaluate is None else tuple(evaluate.split()))


def _outputs_key(outputs: str) -> list[str]:
    return [] if outputs == "outputs" else [f"outputs={quoted(outputs)}"]


@cache
def _composed(overrides: tuple[str, ...]) -> TrainConfig:
    return composed_quickly(overrides)


@cache
def _cells() -> list[Cell]:
    return read_cells(CELLS)
