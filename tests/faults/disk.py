"""Let a disk become full during every kind of write, and let files and folders be read-only.

A small tmpfs is mounted for it, which takes root on Linux. A ballast fills it at the moment when a file is
opened for writing, so it is the kernel that refuses.
"""

import builtins
import io
import os
import pathlib
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sam.config.compose import composed
from sam.config.schema import TrainConfig, config_items
from sam.record.identity import path_of
from sam.training.checkpoint import find_damage
from tests.faults.lives import Ending, Tally, config_for, ended_as, live, outcome

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = os.sysconf("SC_PAGE_SIZE")
NOBODY = 65534
# What is opened for writing, and how often at most in a life.
WRITES = {
    "labels.npz": 1,
    "config.yaml": 1,
    "metrics.csv": 21,
    "events.out": 1,
    "checkpoint.unfinished.pt": 20,
    "result.json": 1,
    "landscape": 2,
}


def why_not() -> str | None:
    """Return why these cases cannot be tried on this machine; None if they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "mounting a small disk takes root on Linux"
    return None if shutil.which("mount") else "there is no mount command"


@contextmanager
def small_disk(folder: pathlib.Path, megabytes: int = 8, inodes: int = 400) -> Iterator[pathlib.Path]:
    """Mount a small disk, and in the end unmount it.

    Raises:
        OSError: If the system does not allow that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m,nr_inodes={inodes}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True)
    if mounted.returncode:
        raise OSError(f"mount: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def long_config(outputs: pathlib.Path) -> TrainConfig:
    """Return a run of 20 epochs of one update, whose metrics.csv grows over a page, with labels.npz."""
    config = config_for(outputs, "noisy")
    config.epochs, config.batch_size, config.m = 20, 32, 16
    config.analysis.name, config.analysis.every = "landscape", 10
    config.analysis.points, config.analysis.dimensions, config.analysis.num_images = 3, 1, 8
    return config


def at_open(name: str, number: int, strike: Callable[[], None]) -> None:
    """Do something just before a file whose name begins so is opened for writing for the n-th time."""
    calls: list[int] = []

    def watching(original: Any) -> Any:
        def opening(path: Any, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
            if mode[0] in "wax" and pathlib.Path(str(path)).name.startswith(name):
                calls.append(1)
                if len(calls) == number:
                    strike()
            return original(path, mode, *arguments, **keywords)

        return opening

    builtins.open = io.open = watching(builtins.open)


def fill(disk: pathlib.Path, pages: int) -> None:
    """Fill a disk but for so many pages."""
    room = os.statvfs(disk)
    with open(disk / "ballast", "wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, max(1, room.f_bavail * room.f_frsize - pages * PAGE))


def use_up_names(disk: pathlib.Path, left: int) -> None:
    """Make empty files until only so many more files or folders can be made."""
    (disk / "empty").mkdir()
    for number in range(os.statvfs(disk).f_favail - left):
        (disk / "empty" / str(number)).touch()


def full_disk(folder: pathlib.Path, tries: int, seed: int) -> Tally:
    """Fill the disk of so many runs at a moment of each; details count what could not be written."""
    draw, tally = random.Random(seed), Tally("disk full")
    if (reason := why_not()) is not None:
        tally.worst = f"skipped: {reason}"
        return tally
    config = long_config(folder / "undisturbed")
    assert live(config, folder).code == 0
    expected = outcome(path_of(config))
    rows = (path_of(config) / "metrics.csv").read_bytes()[:PAGE].count(b"\n")
    kinds = [*WRITES, "names"]
    for number in range(tries):
        kind = kinds[number % len(kinds)]
        opened = {"metrics.csv": rows + 1}.get(kind, draw.randint(1, WRITES.get(kind, 1)))
        pages = draw.choice((0, 0, 0, 1, 5)) if kind != "metrics.csv" else 0
        with small_disk(folder / "disk") as disk:
            config = long_config(disk / "outputs")
            code = f"at_open({kind!r}, {opened}, lambda: fill(disk, {pages}))"
            if kind == "names":
                code = f"use_up_names(disk, {draw.randint(0, 14)})"
            # Of a whole campaign, each kind once.
            is_real = tries >= len(kinds) and number < len(kinds)
            label = f"{'train.py: ' if is_real else ''}{code}"
            _fill_and_free(config, folder, disk, code, is_real, tally, label, expected)
    return tally


def _fill_and_free(
    config: TrainConfig,
    folder: pathlib.Path,
    disk: pathlib.Path,
    code: str,
    is_real: bool,
    tally: Tally,
    label: str,
    expected: object,
) -> None:
    """Live once with a disk that becomes full, and again with room."""
    if is_real:
        ending = live_for_real(config, f"disk = pathlib.Path({str(disk)!r}); {code}")
    else:
        ending = live(config, folder, lambda: eval(code, {**globals(), "disk": disk}))
    tally.see(ending, label)
    tally.details.update(ending.files)
    directory = path_of(config)
    there = [path for path in directory.glob("checkpoint*.pt") if "unfinished" not in path.name]
    intact = not there or any(find_damage(path) is None for path in there)
    for name in ("ballast", "empty"):
        subprocess.run(["rm", "-rf", str(disk / name)], check=True)
    again = live(config, folder)
    tally.see(again, label)
    kept = intact and again.code == 0 and ending.code in (0, 2)
    tally.judge(label, kept=kept, equal=kept and ended_as(directory, expected))


def live_for_real(config: TrainConfig, code: str) -> Ending:
    """Run train.py itself, in a new process, after some code."""
    known = {key: value for key, value, _ in config_items(composed(["dataset=synthetic"]))}
    overrides = [f"{key}={value}" for key, value, _ in config_items(config) if value != known[key]]
    program = (
        f"import os, pathlib, resource, runpy, sys; sys.path.insert(0, {str(ROOT)!r});"
        f"from tests.faults.disk import *; {code};"
        f"sys.argv = {['train.py', 'dataset=synthetic', *overrides]!r};"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    return Ending(done.returncode, done.stdout, done.stderr, "")
