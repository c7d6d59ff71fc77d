"""Which runs of a figure's plan exist, and the commands that make the missing ones. Imports no torch."""

import dataclasses
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sam.config.composer import quoted
from sam.paper.figure_plan import FigurePlan, Preset
from sam.record.analyses import read_analyses
from sam.record.evaluations import read_calibration
from sam.record.identity import identity, path_of
from sam.record.reader import Run


class ExistingRuns(NamedTuple):
    """The existing and the missing runs of a preset.

    Attributes:
        runs: The ended runs; of two copies, the one with more of the needed analyses is first.
        num_planned: Number of runs that the preset plans.
        missing: The directories of the runs that have not ended, where the commands would make them.
        bare: The directories of ended runs that lack the analyses that the figure needs.
        commands: The commands that make everything that is missing, in this order.
    """

    runs: list[Run]
    num_planned: int
    missing: list[Path]
    bare: list[Path]
    commands: list[str]


def find_existing(
    name: str, plan: FigurePlan, preset: Preset, runs: Iterable[Run], outputs: str
) -> ExistingRuns:
    """Compare the runs that were found with those of a preset.

    train.py cannot add analyses during training to a run that has already ended. To train this run again
    would delete files that other figures need. So runs that are analysed during training have their own
    folder.

    Args:
        name: The figure's name.
        plan: The figure's plan.
        preset: One of the plan's presets, perhaps with other seeds.
        runs: All runs that were found, ended or not.
        outputs: The outputs folder of the commands.
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
    return ExistingRuns(chosen, len(planned), missing, list(dict.fromkeys(bare)), commands)


def in_order_of_use(plan: FigurePlan, runs: Iterable[Run]) -> list[Run]:
    """Sort runs, those with most of the needed analyses first: of two copies, the first is used."""
    return sorted(runs, key=lambda run: -num_looks(plan, run))


def num_looks(plan: FigurePlan, run: Run) -> int:
    """Return how many of a run's analyses have the settings and the epoch that the figure needs."""
    epochs = run.config["epochs"]
    if plan.needs == "calibration":
        splits = ("test", "validation")
        return sum(read_calibration(run.directory, split, epochs) is not None for split in splits)
    made = read_analyses(run.directory, plan.needs)[0] if plan.needs else []
    return sum(
        (plan.shows_training or look.epoch == epochs) and plan.settings.items() <= look.settings.items()
        for look in made
    )


def _evaluate_command(words: Sequence[str], directories: Iterable[Path]) -> str:
    # A folder holds all seeds of a method; evaluate.py skips runs that have been evaluated.
    folders = sorted({str(directory.parent) for directory in directories})
    sweep = ["-m"] if len(folders) > 1 else []
    return shlex.join(["python", "evaluate.py", *sweep, "run=" + ",".join(map(quoted, folders)), *words])
