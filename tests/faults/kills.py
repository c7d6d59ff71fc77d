"""Kill small real runs with SIGKILL, let them go on, and compare bits.

Every child dies at a point of its own choosing: in the middle of the bytes of a checkpoint, of metrics.csv,
result.json or config.yaml, before an update, at the n-th fsync or rename of any file, or from outside after a
random time.
"""

import builtins
import io
import os
import pathlib
import random
import shutil
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from sam.record.identity import path_of
from sam.training.update import Update
from tests.faults.lives import KINDS, Tally, config_for, die, ended_as, live, note, outcome

# How often each text file is opened for writing in a life from the beginning to the end.
TEXTS = {"metrics.csv": 4, "result.json": 1, "config.yaml": 1}


def campaign(folder: pathlib.Path, num_kills: int, seed: int) -> Tally:
    """Kill and continue runs until enough kills have happened; details count those inside of writes."""
    draw, tally, number, kills = random.Random(seed), Tally("kill"), 0, 0
    expected: dict[str, object] = {}
    while kills < num_kills:
        number += 1
        kind = draw.choice(KINDS)
        if kind not in expected:
            config = config_for(folder / "undisturbed", kind)
            assert live(config, folder).code == 0
            expected[kind] = outcome(path_of(config))
        config = config_for(folder / f"run{number}", kind)
        chosen = []
        for _ in range(draw.randint(1, 4)):
            name, sabotage, seconds = _choose(draw)
            ending = live(config, folder, sabotage, seconds)
            chosen.append(f"{name} -> {ending.code}")
            tally.see(ending, chosen)
            kills += ending.code == -signal.SIGKILL
            tally.details.update(ending.notes.splitlines())
        label = f"{kind}: {'; '.join(chosen)}"
        last = live(config, folder)
        tally.see(last, label)
        tally.judge(label, kept=last.code == 0, equal=ended_as(path_of(config), expected[kind]))
        shutil.rmtree(config.outputs)
    tally.tries = kills
    return tally


def _choose(draw: random.Random) -> tuple[str, Callable[[], None] | None, float | None]:
    """Draw a way to die: its name, what brings it about, or the seconds until it comes from outside."""
    kind = draw.choice(("update", "save", "save", "text", "text", "fsync", "replace", "time"))
    if kind == "time":
        seconds = draw.uniform(0.02, 0.6)
        return f"after {seconds:.3f} s", None, seconds
    number, share = draw.randint(1, 8), draw.random()
    if kind == "save":
        return f"in save {number}", partial(die_inside_save, number, share), None
    if kind == "text":
        name = draw.choice(list(TEXTS))
        number = draw.randint(1, TEXTS[name])
        return f"in {name} {number}", partial(die_inside_text, name, number, share), None
    owner, function = {"update": (Update, "__call__")}.get(kind, (os, kind))
    return f"at {kind} {number}", partial(die_at_call, owner, function, number), None


def die_at_call(owner: Any, name: str, number: int) -> None:
    """Replace a function by one that dies at its n-th call."""
    original, calls = getattr(owner, name), []

    def dying(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            note(f"at {name}")
            die()
        return original(*arguments, **keywords)

    setattr(owner, name, dying)


def die_inside_save(number: int, share: float) -> None:
    """Write only a share of the bytes of the n-th checkpoint, then die."""
    original, calls = torch.save, []

    def dying(state: Any, file: Any) -> None:
        calls.append(1)
        if len(calls) < number:
            original(state, file)
            return
        whole = io.BytesIO()
        original(state, whole)
        _write_part(file, whole.getvalue(), share, "checkpoint.pt")

    torch.save = dying


def die_inside_text(name: str, number: int, share: float) -> None:
    """Write only a share of the text when a file is opened for writing for the n-th time, then die."""
    original, calls = builtins.open, []

    def opening(path: Any, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        file = original(path, mode, *arguments, **keywords)
        if mode != "r" and pathlib.Path(str(path)).name.startswith(name):
            calls.append(1)
            if len(calls) == number:
                return _Dying(file, share, name)
        return file

    builtins.open = opening


class _Dying:
    """A file that dies in the middle of what is written first."""

    def __init__(self, file: Any, share: float, name: str) -> None:
        self._file, self._share, self._name = file, share, name

    def __enter__(self) -> "_Dying":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> None:
        _write_part(self._file, text, self._share, self._name)


def _write_part(file: Any, whole: Any, share: float, name: str) -> None:
    """Write at least one unit of something and at most all but one, then die."""
    file.write(whole[: max(1, min(int(share * len(whole)), len(whole) - 1))])
    file.flush()
    note(f"inside {name}")
    die()
