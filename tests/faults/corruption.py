"""Damage the files of interrupted and of ended runs, and see what the programs make of them.

An ended run whose result.json is whole stays ended and untouched, and whatever reads it gives right numbers
or a message. Any other run ends with the bits of an undisturbed one, or, if no checkpoint is left, with one
message.
"""

import json
import os
import pathlib
import random
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

from sam.record.directory import read_result
from sam.record.identity import path_of
from sam.record.reader import find_runs
from sam.training.checkpoint import find_damage
from tests.faults.kills import die_at_call, die_inside_save
from tests.faults.lives import KINDS, Ending, Tally, config_for, contents, ended_as, evaluate, live, outcome

CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")
NAMES = (*CHECKPOINTS, "metrics.csv", "config.yaml", "result.json", "labels.npz")
SPLITS = ("test", "train")
# In which an interrupted run was killed; it saves twelve times.
SAVES = (1, 2, 5, 9, 12)
LABELS_ADVICE = "delete it"


class Original:
    """A run as it is before it is damaged: ended, or killed while it saved."""

    def __init__(self, folder: pathlib.Path, kind: str, save: int | None) -> None:
        self.kind, self.is_ended = kind, save is None
        self.name = f"{kind}-{save or 'ended'}"
        config = config_for(folder / self.name, kind)
        self.outputs = folder / self.name
        self.directory = path_of(config)
        if save is None:
            assert live(config, folder).code == 0
            self.evaluations = {split: self._evaluated(split, folder) for split in SPLITS}
        else:
            live(config, folder, partial(die_inside_save, save, 0.5))
        self.files = [name for name in NAMES if (self.directory / name).exists()]
        (self.run,), _ = find_runs([self.directory])

    def _evaluated(self, split: str, folder: pathlib.Path) -> Any:
        assert evaluate(self.directory, split, folder).code == 0
        path = self.directory / f"evaluation-{split}.json"
        record = json.loads(path.read_text())
        path.unlink()
        return record


def campaign(folder: pathlib.Path, tries: int, seed: int) -> Tally:
    """Damage so many runs; details count the kinds of damage and what came of them."""
    draw, tally = random.Random(seed), Tally("corrupt")
    originals: dict[tuple[str, int | None], Original] = {}
    expected = {}
    for _ in range(tries):
        kind, save = draw.choice(KINDS), draw.choice((None, None, None, *SAVES))
        for wanted in (None, save):
            if (kind, wanted) not in originals:
                originals[kind, wanted] = Original(folder / "originals", kind, wanted)
        if kind not in expected:
            expected[kind] = outcome(originals[kind, None].directory)
        original = originals[kind, save]
        config = config_for(folder / "damaged", kind)
        directory = path_of(config)
        shutil.copytree(original.directory, directory)
        number = min(len(original.files), draw.choice((1, 1, 1, 1, 2, 3)))
        damages = {name: damage(directory / name, draw) for name in draw.sample(original.files, number)}
        label = f"{original.name}: {damages}"
        tally.details.update(f"{name} {how.split()[0]}" for name, how in damages.items())
        if original.is_ended and "result.json" not in damages:
            kept, right = _stays(original, directory, partial(live, config, folder), tally, label, folder)
        else:
            moment = draw.randint(1, 8) if draw.random() < 0.3 else None
            lives = [partial(die_at_call, os, "replace", moment)] * (moment is not None) + [None]
            label += f", killed at rename {moment}" * (moment is not None)
            alive = [partial(live, config, folder, sabotage) for sabotage in lives]
            kept, right = _goes_on(original, directory, alive, tally, label, expected[kind])
        tally.judge(label, kept=kept, equal=right)
        shutil.rmtree(config.outputs)
    return tally


def damage(path: pathlib.Path, draw: random.Random) -> str:
    """Damage a file in a way that is drawn; return which."""
    content, kind = path.read_bytes(), draw.choice(("truncated", "flipped", "flipped", "emptied", "deleted"))
    if kind == "deleted":
        path.unlink()
    elif kind == "emptied":
        path.write_bytes(b"")
    elif kind == "truncated":
        length = draw.randrange(len(content))
        path.write_bytes(content[:length])
        kind += f" to {length}"
    else:
        damaged = bytearray(content)
        bits = [draw.randrange(8 * len(content)) for _ in range(draw.choice((1, 1, 8)))]
        for bit in bits:
            damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        kind += f" at {bits}"
    return kind


def _stays(
    original: Original,
    directory: pathlib.Path,
    once: Callable[[], Ending],
    tally: Tally,
    label: str,
    folder: pathlib.Path,
) -> tuple[bool, bool]:
    """Return whether an ended run is still ended and untouched, and whether readers tell no wrong number."""
    before = contents(directory)
    right = _reads_right(original, directory, tally)
    for split in SPLITS:
        ending = evaluate(directory, split, folder)
        tally.see(ending, f"evaluate {split}: {label}")
        if ending.code == 0:
            record = json.loads((directory / f"evaluation-{split}.json").read_text())
            right &= record == original.evaluations[split]
    ending = once()
    tally.see(ending, label)
    kept = ending.code == 0 and "skipped" in ending.out and contents(directory) == before
    return kept, right


def _reads_right(original: Original, directory: pathlib.Path, tally: Tally) -> bool:
    """Return whether the reader of runs tells of a problem, or what the undamaged run says."""
    runs, problems = find_runs([directory])
    tally.details["read with a warning"] += bool(problems)
    if problems:
        return True
    if not runs:  # nothing is left to show that here was a run
        return not (directory / "result.json").exists()
    (run,) = runs
    same_result = run.result is None or _numbers(run.result) == _numbers(original.run.result or {})
    unprotected = run.result is None
    return same_result and (
        unprotected or (run.config, run.metrics) == (original.run.config, original.run.metrics)
    )


def _numbers(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "checksums"}


def _goes_on(
    original: Original,
    directory: pathlib.Path,
    lives: list[Callable[[], Ending]],
    tally: Tally,
    label: str,
    expected: object,
) -> tuple[bool, bool]:
    """Return whether a run ended, or told that no checkpoint is left, and whether its bits are right."""
    right = not original.is_ended or _reads_right(original, directory, tally)
    is_whole = read_result(directory) is not None  # where a flipped bit changed nothing that counts
    there = [directory / name for name in CHECKPOINTS if (directory / name).exists()]
    readable = [path for path in there if find_damage(path) is None]
    for once in lives:
        ending = once()
        tally.see(ending, label)
        if ending.code == 2 and LABELS_ADVICE in ending.err:
            tally.details["labels.npz deleted as advised"] += 1
            os.unlink(directory / "labels.npz")
            ending = once()
            tally.see(ending, label)
    if there and not readable and not is_whole:
        tally.details["no checkpoint left, told so"] += 1
        return ending.code == 2 and "force=true" in ending.err, right
    return ending.code == 0, right and ended_as(directory, expected)
