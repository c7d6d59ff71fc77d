"""Two processes on one run, a clock that jumps, and a full file table."""

import builtins
import datetime
import io
import os
import pathlib
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import sam.run.result
import train as train_script
from sam.record.identity import path_of
from tests.faults.disk import live_for_real
from tests.faults.kills import die_inside_save
from tests.faults.lives import Tally, begin, config_for, ended_as, live, outcome, wait

YEAR = 365 * 86_400


def two_processes(folder: pathlib.Path, tries: int, seed: int) -> Tally:
    """Start a run two or three times within a second: one trains, the others say so or find it ended."""
    draw, tally = random.Random(seed), Tally("two processes")
    config = config_for(folder / "undisturbed", "noisy")
    began = time.monotonic()
    assert live(config, folder).code == 0
    seconds = time.monotonic() - began
    expected = outcome(path_of(config))
    for _ in range(tries):
        config = config_for(folder / "shared", "noisy")
        children = []
        for name in ("first", "second", "third")[: draw.choice((2, 2, 3))]:
            time.sleep(draw.choice((0, 0, draw.uniform(0, 0.1), draw.uniform(0, 1.2 * seconds))))
            children.append((name, begin(partial(train_script.train, config), folder, name=name)))
        endings = [wait(child, folder, name=name) for name, child in children]
        label = f"{len(children)} processes: {[ending.code for ending in endings]}"
        for ending in endings:
            tally.see(ending, label)
        trained = [ending for ending in endings if "epoch 1 of 3" in ending.out]
        refused = ["another process is working in" in ending.err for ending in endings]
        tally.details["refused"] += sum(refused)
        tally.details["found it ended"] += len(endings) - len(trained) - sum(refused)
        kept = len(trained) == 1 and all(e.code == (2 if no else 0) for e, no in zip(endings, refused))
        tally.judge(label, kept=kept, equal=ended_as(path_of(config), expected))
        shutil.rmtree(config.outputs)
    return tally


def jumping_clock(folder: pathlib.Path, tries: int, seed: int) -> Tally:
    """Let the wall clock jump during a run and between its lives."""
    draw, tally = random.Random(seed), Tally("clock")
    config = config_for(folder / "undisturbed", "sam")
    assert live(config, folder).code == 0
    expected = outcome(path_of(config))
    for number in range(tries):
        config = config_for(folder / f"run{number}", "sam")
        jumps = [draw.choice((-1, 1)) * draw.choice((1, 3600, YEAR, 20 * YEAR)) for _ in range(4)]
        save, moments = draw.randint(3, 12), [draw.randint(1, 60), draw.randint(1, 60)]

        def first(jumps: list[int] = jumps, save: int = save, moments: list[int] = moments) -> None:
            jump(jumps[0], jumps[1], moments[0])
            die_inside_save(save, 0.5)

        label = f"jumps of {jumps} s, killed in save {save}"
        killed = live(config, folder, first)
        tally.see(killed, label)
        last = live(config, folder, partial(jump, jumps[2], jumps[3], moments[1]))
        tally.see(last, label)
        curves = EventAccumulator(str(path_of(config) / "tensorboard"))
        curves.Reload()
        steps = [event.step for event in curves.Scalars("test/error_pct")]
        kept = killed.code == -signal.SIGKILL and last.code == 0 and steps == [1, 2, 3]
        tally.judge(label, kept=kept, equal=ended_as(path_of(config), expected))
        shutil.rmtree(config.outputs)
    return tally


def jump(before: int, after: int, calls: int) -> None:
    """Set the clock off by some seconds, and by others once it has been asked so often."""
    clock, asked = time.time, []

    def time_now() -> float:
        asked.append(1)
        return clock() + (before if len(asked) < calls else after)

    class Datetime(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(time_now(), tz)

    time.time = time_now
    sam.system.machine.datetime.datetime = Datetime  # type: ignore[misc]


def full_table(folder: pathlib.Path, tries: int, seed: int) -> Tally:
    """Allow no more open files from some moment on; details count the files that could not be opened."""
    draw, tally = random.Random(seed), Tally("file table")
    config = config_for(folder / "undisturbed", "noisy")
    assert live(config, folder).code == 0
    expected = outcome(path_of(config))
    for number in range(tries):
        config = config_for(folder / f"run{number}", "noisy")
        if number % 40 == 39:
            limit = draw.choice((8, 12, 16, 24))
            label = f"train.py, {limit} files"
            ending = live_for_real(config, f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))")
        elif number % 2:
            opened = draw.randint(1, 75)
            label = f"from open {opened} on"
            ending = live(config, folder, partial(no_file_after, opened))
        else:
            spare = draw.randint(0, 6)
            label = f"{spare} files more"
            ending = live(config, folder, partial(few_files, spare))
        tally.see(ending, label)
        tally.details.update(ending.files)
        again = live(config, folder)
        tally.see(again, label)
        kept = again.code == 0 and ending.code in (0, 2)
        tally.judge(label, kept=kept, equal=kept and ended_as(path_of(config), expected))
        shutil.rmtree(config.outputs)
    return tally


def few_files(spare: int) -> None:
    """Allow so many files more than are open."""
    highest = max(map(int, os.listdir("/proc/self/fd")))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest)]  # no gap is left below
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken, default=highest) + 1 + spare, hard))


def no_file_after(number: int) -> None:
    """Allow none any more from the n-th call of an open function on."""
    calls: list[int] = []

    def watching(original: Callable[..., Any]) -> Callable[..., Any]:
        def opening(*arguments: Any, **keywords: Any) -> Any:
            calls.append(1)
            if len(calls) == number:
                few_files(0)
            return original(*arguments, **keywords)

        return opening

    builtins.open = io.open = watching(builtins.open)
    os.open = watching(os.open)
