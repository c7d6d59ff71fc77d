"""Let folders and files be read-only or unreadable: for all, by the disk, or for a user who is not root."""

import os
import pathlib
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from sam.record.identity import path_of
from tests.faults.disk import NOBODY, small_disk, why_not
from tests.faults.kills import die_inside_save
from tests.faults.lives import Tally, config_for, contents, ended_as, live, outcome

# What is made read-only, seen from the run directory; "disk" is the whole disk.
PLACES = (
    "disk",
    "../..",
    ".",
    "tensorboard",
    "checkpoint.pt",
    "checkpoint.previous.pt",
    "metrics.csv",
    "config.yaml",
    "labels.npz",
    "result.json",
    ".lock",
)
STATES = ("new", "interrupted", "ended")
WAYS = ("immutable", "not mine")


def campaign(folder: pathlib.Path, tries: int, seed: int) -> Tally:
    """Train and evaluate over files that may not be changed or read; details count places and exit codes."""
    draw, tally = random.Random(seed), Tally("read-only")
    if (reason := why_not()) is not None:
        tally.worst = f"skipped: {reason}"
        return tally
    config = config_for(folder / "undisturbed", "noisy")
    assert live(config, folder).code == 0
    folder.chmod(0o777)
    expected = outcome(path_of(config))
    for number in range(tries):
        state, place, way = draw.choice(STATES), PLACES[number % len(PLACES)], draw.choice(WAYS)
        with small_disk(folder / "disk") as disk:
            config = config_for(disk / "outputs", "noisy")
            directory = path_of(config)
            if state == "ended":
                assert live(config, folder).code == 0
            elif state == "interrupted":
                live(config, folder, partial(die_inside_save, draw.randint(3, 11), 0.5))
            path = disk if place == "disk" else directory / place
            way = "disk" if place == "disk" else way
            label = f"{state} run, {place} ({way})"
            before = contents(directory) if state == "ended" else None
            with _forbidden(path, disk, way):
                become = partial(os.setuid, NOBODY) if way == "not mine" else None
                ending = live(config, folder, become)
                tally.see(ending, label)
                tally.details[f"{place} -> {ending.code}"] += 1
                tally.see(live(config, folder, become), label)
            kept = ending.code in (0, 2) and before in (None, contents(directory))
            again = live(config, folder)
            tally.see(again, label)
            kept &= again.code == 0
            tally.judge(label, kept=kept, equal=kept and ended_as(directory, expected))
    return tally


@contextmanager
def _forbidden(path: pathlib.Path, disk: pathlib.Path, way: str) -> Iterator[None]:
    """Make a place read-only, for all or for all but root; what is not there stays so."""
    if way == "disk":
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        return
    if way == "not mine":
        for root, _, files in os.walk(disk):
            for name in (root, *(os.path.join(root, name) for name in files)):
                os.chown(name, NOBODY, NOBODY)
        if path.exists():
            os.chown(path, 0, 0)
            path.chmod(0o555 if path.is_dir() else 0o000)
        yield
        if path.exists():
            path.chmod(0o755 if path.is_dir() else 0o644)
        return
    there = path.exists()
    if there:
        subprocess.run(["chattr", "+i", str(path)], check=True)
    try:
        yield
    finally:
        if there:
            subprocess.run(["chattr", "-i", str(path)], check=True)
