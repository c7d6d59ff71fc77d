"""What reproduce.py does before it trains: try every condition, and say what training all of them costs here.

Each trial runs in a process of its own, so that one that the system kills for its memory fails alone.
"""

import dataclasses
import math
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from sam.config.schema import TrainConfig
from sam.paper.cells import Cell
from sam.paper.runs import PlannedRun, made_up, num_evaluated, num_updates, runs_of, unique
from sam.run.trial import Trial, attempt, write_images

SMOKE_M = 4
# Networks for larger images than these are tried on smaller ones.
SMOKE_SIZES = {"efficientnet_b7": 96, "efficientnet_l2": 64}
# Longer updates than this are timed with two micro-batches and multiplied.
LONG_UPDATE_SECONDS = 10.0


class Rehearsal:
    """Runs trials in a worker process, on images made up in a folder of its own.

    Args:
        anew: Give each trial a fresh process, so that its peak memory is its own.
    """

    def __init__(self, anew: bool) -> None:
        self._anew = anew
        self._folder = tempfile.TemporaryDirectory(prefix="rehearsal-")
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Rehearsal":
        return self

    def __exit__(self, *_: object) -> None:
        self._end_pool()
        self._folder.cleanup()

    def attempt(self, config: TrainConfig, num_updates: int) -> Trial | str:
        """Return what a trial shows, or why it failed, in one line."""
        self._pool = self._pool or ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        try:
            return self._pool.submit(attempt, self._with_images(config), num_updates).result()
        except BrokenProcessPool:
            self._end_pool()
            return "the process was killed, probably for lack of memory"
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
        finally:
            if self._anew:
                self._end_pool()

    def _with_images(self, config: TrainConfig) -> TrainConfig:
        """Return the config with a folder of images, made if need be, where it wants one."""
        config = dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, workers=0))
        dataset = config.dataset
        if dataset.reader != "image_folder":
            return config
        num_classes = dataset.num_classes or 0  # made_up() has set it, and how many images there are to be
        num_train, num_test = dataset.num_train or 0, dataset.num_test or 0
        if dataset.validation != "none":
            num_train = num_train * 10 // 9 + 10 * num_test  # a tenth is held out before the rest is chosen
        num_train, num_test = max(num_classes, num_train), max(num_classes, num_test)
        folder = Path(self._folder.name, f"{num_train}-{num_test}-{num_classes}")
        if not folder.exists():
            write_images(folder, num_train, num_test, num_classes)
        found = dataclasses.replace(dataset, root=str(folder))
        return dataclasses.replace(config, dataset=found)

    def _end_pool(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def smoke(cells: Sequence[Cell], overrides: Sequence[str]) -> int:
    """Try each condition for two updates and an evaluation; return 0 if all pass, else 1."""
    started, failed, peak = time.monotonic(), 0, 0.0
    with Rehearsal(anew=False) as rehearsal:
        for number, cell in enumerate(cells, start=1):
            config = runs_of(cell, [0], overrides)[-1].config
            size = SMOKE_SIZES.get(config.model.name)
            m = min(SMOKE_M, config.m or SMOKE_M)
            small = made_up(config, m=m, num_micro_batches=2, num_batches=2, largest_size=size)
            trial = rehearsal.attempt(small, 2 if config.epochs else 0)
            ending = f": {trial}" if isinstance(trial, str) else _fault(trial)
            failed += bool(ending)
            peak = max(peak, 0.0 if isinstance(trial, str) else trial.peak_memory_mib)
            note = f" (at {size} pixels)" if size else ""
            print(
                f"[{number} of {len(cells)}] {'FAIL' if ending else 'pass'} {cell.name}{note}{ending}",
                flush=True,
            )
    seconds = time.monotonic() - started
    print(
        f"{len(cells) - failed} of {len(cells)} pass, {seconds / 60:.1f} minutes, "
        f"peak memory {peak / 1024:.1f} GiB"
    )
    return 1 if failed else 0


class Cost(NamedTuple):
    """What runs of one kind take here.

    Attributes:
        update_seconds: Of one update; 0 where none is made.
        evaluation_seconds: Of one image.
        peak_memory_mib: Of the process, or of the GPU.
        note: How it was measured.
    """

    update_seconds: float
    evaluation_seconds: float
    peak_memory_mib: float
    note: str

    def hours(self, config: TrainConfig) -> float:
        """Return how long a run takes."""
        training = num_updates(config) * self.update_seconds
        return (training + num_evaluated(config) * self.evaluation_seconds) / 3600


def dry_run(plan: Mapping[str, Sequence[PlannedRun]]) -> int:
    """Time each kind of run, and print hours per run, per condition and in all; return 1 if any failed."""
    kinds = {_kind(run.config): run.config for runs in plan.values() for run in runs}
    costs: dict[Hashable, Cost | str] = {}
    print("One update each (peak memory of its process):")
    for kind, config in kinds.items():
        costs[kind] = cost = _measure(config)
        said = (
            cost
            if isinstance(cost, str)
            else (f"{cost.update_seconds:.2f} s, {cost.peak_memory_mib / 1024:.1f} GiB ({cost.note})")
        )
        print(f"  {_describe(config)}: {said}", flush=True)
    print("\nHours per run x runs = hours, for each condition (what two share is counted in both):")
    for name, runs in plan.items():
        print(f"  {name}: {_sum_of_hours(runs, costs)}")
    runs = unique(run for members in plan.values() for run in members)
    known = [cost.hours(run.config) for run in runs if not isinstance(cost := costs[_kind(run.config)], str)]
    memory = max((cost.peak_memory_mib for cost in costs.values() if not isinstance(cost, str)), default=0.0)
    hours, left_out = sum(known), len(runs) - len(known)
    print(
        f"\n{len(plan)} conditions, {len(runs)} runs: {hours:,.0f} hours ({hours / 24:,.0f} days) one after "
        f"the other, peak memory {memory / 1024:.1f} GiB"
    )
    if left_out:
        print(f"{left_out} runs are not counted: no update of theirs could be timed")
    print("Not counted: reading, decoding and augmenting images.")
    return int(left_out > 0)


def _measure(config: TrainConfig) -> Cost | str:
    """Time a few updates of a kind of run; where they are long, with two micro-batches of each."""
    m = config.m or config.batch_size
    num_parts = config.batch_size // m
    parts = min(2, num_parts)
    with Rehearsal(anew=True) as rehearsal:
        num_tried = 2 if config.epochs else 0
        trial = rehearsal.attempt(made_up(config, m=m, num_micro_batches=parts, num_batches=2), num_tried)
        if isinstance(trial, str):
            return trial
        if not config.epochs:
            note = f"{trial.device}, evaluated alone"
            return Cost(0.0, trial.evaluation_seconds, trial.peak_memory_mib, note)
        seconds, note = trial.update_seconds * num_parts / parts, trial.device
        if parts < num_parts and seconds < LONG_UPDATE_SECONDS:
            whole = rehearsal.attempt(made_up(config, m=m, num_micro_batches=num_parts, num_batches=3), 3)
            if isinstance(whole, str):
                return whole
            trial, seconds = whole, whole.update_seconds
        elif parts < num_parts:
            note += f", {parts} of {num_parts} micro-batches timed"
    return Cost(seconds, trial.evaluation_seconds, trial.peak_memory_mib, note)


def _kind(config: TrainConfig) -> Hashable:
    """Return what is equal for runs that cost the same; the number of classes is taken not to matter."""
    dataset = made_up(config, m=1, num_micro_batches=1, num_batches=1).dataset
    optimizer = config.optimizer if config.optimizer.name == "sam" else None
    steps = optimizer and (
        optimizer.ascent_steps,
        optimizer.ascent_fraction,
        optimizer.interval,
        optimizer.start,
    )
    model = dataclasses.astuple(dataclasses.replace(config.model, init_seed=None))
    return (
        model,
        dataset.image_size,
        config.batch_size,
        config.m,
        steps,
        config.epochs == 0,
        config.runtime.precision,
    )


def _describe(config: TrainConfig) -> str:
    steps = config.optimizer.ascent_steps if config.optimizer.name == "sam" else 1
    method = config.optimizer.name + (f" with {steps} ascent steps" if steps > 1 else "")
    return f"{config.model.name}, {method}, batch {config.batch_size}, m {config.m}"


def _sum_of_hours(runs: Sequence[PlannedRun], costs: Mapping[Hashable, Cost | str]) -> str:
    """Write the sum of a condition, runs of one length together."""
    hours = []
    for run in runs:
        cost = costs[_kind(run.config)]
        if isinstance(cost, str):
            return "unknown"
        hours.append(round(cost.hours(run.config), 2))
    parts = [f"{each:,.2f} x {count}" for each, count in Counter(hours).items()]
    return f"{' + '.join(parts)} = {sum(hours):,.1f}"


def _fault(trial: Trial) -> str:
    return "" if math.isfinite(trial.test_loss) else f": the test loss is {trial.test_loss}"
