"""reproduce.py --smoke and --dry-run: try every condition, and estimate the cost of training all of them.

Each trial runs in another process, so that the system can kill it for its memory without ending this one.
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
from sam.paper.conditions import Condition
from sam.paper.runs import PlannedRun, num_evaluated, num_updates, on_random_data, runs_of, unique
from sam.run.trial import Trial, run_trial, write_images
from sam.system.words import counted

SMOKE_M = 4
# --smoke tries these networks on smaller images, with this height and width in pixels.
SMOKE_SIZES = {"efficientnet_b7": 96, "efficientnet_l2": 64}
# If an update takes longer, only two micro-batches are timed, and the time is multiplied.
LONG_UPDATE_SECONDS = 10.0


class Rehearsal:
    """Runs trials in a worker process, on generated images in a temporary folder.

    Args:
        fresh_process: Whether each trial gets a new process, so that its peak memory can be measured.
    """

    def __init__(self, fresh_process: bool) -> None:
        self._fresh_process = fresh_process
        self._folder = tempfile.TemporaryDirectory(prefix="rehearsal-")
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Rehearsal":
        return self

    def __exit__(self, *_: object) -> None:
        self._end_pool()
        self._folder.cleanup()

    def run_trial(self, config: TrainConfig, num_updates: int) -> Trial | str:
        """Return the measurements of a trial, or the reason of its failure in one line."""
        self._pool = self._pool or ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        try:
            return self._pool.submit(run_trial, self._with_images(config), num_updates).result()
        except BrokenProcessPool:
            self._end_pool()
            return "the process was killed, probably for lack of memory"
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
        finally:
            if self._fresh_process:
                self._end_pool()

    def _with_images(self, config: TrainConfig) -> TrainConfig:
        """Return the config; if it needs an image folder, with one that is generated if necessary."""
        config = dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, workers=0))
        dataset = config.dataset
        if dataset.reader != "image_folder":
            return config
        num_classes = dataset.num_classes or 0  # on_random_data() has set the numbers of classes and images
        num_train, num_test = dataset.num_train or 0, dataset.num_test or 0
        if dataset.validation != "none":
            num_train = num_train * 10 // 9 + 10 * num_test  # a tenth is held out first
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


def smoke(cells: Sequence[Condition], overrides: Sequence[str]) -> int:
    """Try each condition for two updates and an evaluation; return 0 if all pass, else 1."""
    started, failed, peak = time.monotonic(), 0, 0.0
    with Rehearsal(fresh_process=False) as rehearsal:
        for number, cell in enumerate(cells, start=1):
            config = runs_of(cell, [0], overrides)[-1].config
            size = SMOKE_SIZES.get(config.model.name)
            m = min(SMOKE_M, config.m or SMOKE_M)
            small = on_random_data(config, m=m, num_micro_batches=2, num_batches=2, largest_size=size)
            trial = rehearsal.run_trial(small, 2 if config.epochs else 0)
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
    """The cost of runs of one kind on this machine.

    Attributes:
        update_seconds: Time of one update; 0 for runs without updates.
        evaluation_seconds: Time to evaluate one image.
        peak_memory_mib: Peak memory of the process, or of the GPU.
        note: How it was measured.
    """

    update_seconds: float
    evaluation_seconds: float
    peak_memory_mib: float
    note: str

    def hours(self, config: TrainConfig) -> float:
        """Return the hours of a run."""
        training = num_updates(config) * self.update_seconds
        return (training + num_evaluated(config) * self.evaluation_seconds) / 3600


def dry_run(plan: Mapping[str, Sequence[PlannedRun]]) -> int:
    """Time each kind of run; print the hours of runs, of conditions and of all; return 1 if one failed."""
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
    print("\nHours per run x runs = hours, for each condition (a shared run is counted in each):")
    for name, runs in plan.items():
        print(f"  {name}: {_sum_of_hours(runs, costs)}")
    runs = unique(run for members in plan.values() for run in members)
    known = [cost.hours(run.config) for run in runs if not isinstance(cost := costs[_kind(run.config)], str)]
    memory = max((cost.peak_memory_mib for cost in costs.values() if not isinstance(cost, str)), default=0.0)
    hours, left_out = sum(known), len(runs) - len(known)
    print(
        f"\n{counted(len(plan), 'condition')}, {counted(len(runs), 'run')}: {hours:,.0f} hours "
        f"({hours / 24:,.0f} days) one after the other, peak memory {memory / 1024:.1f} GiB"
    )
    if left_out:
        print(f"not counted: {counted(left_out, 'run')} whose updates could not be timed")
    print("Not counted: reading, decoding and augmenting images.")
    return int(left_out > 0)


def _measure(config: TrainConfig) -> Cost | str:
    """Time a few updates of a kind of run; if updates are long, two micro-batches of each."""
    m = config.m or config.batch_size
    num_parts = config.batch_size // m
    parts = min(2, num_parts)
    with Rehearsal(fresh_process=True) as rehearsal:
        num_tried = 2 if config.epochs else 0
        trial = rehearsal.run_trial(
            on_random_data(config, m=m, num_micro_batches=parts, num_batches=2), num_tried
        )
        if isinstance(trial, str):
            return trial
        if not config.epochs:
            note = f"{trial.device}, evaluation only"
            return Cost(0.0, trial.evaluation_seconds, trial.peak_memory_mib, note)
        seconds, note = trial.update_seconds * num_parts / parts, trial.device
        if parts < num_parts and seconds < LONG_UPDATE_SECONDS:
            whole = rehearsal.run_trial(
                on_random_data(config, m=m, num_micro_batches=num_parts, num_batches=3), 3
            )
            if isinstance(whole, str):
                return whole
            trial, seconds = whole, whole.update_seconds
        elif parts < num_parts:
            note += f", {parts} of {num_parts} micro-batches timed"
    return Cost(seconds, trial.evaluation_seconds, trial.peak_memory_mib, note)


def _kind(config: TrainConfig) -> Hashable:
    """Return a key that is equal for runs of equal cost; the number of classes hardly matters."""
    dataset = on_random_data(config, m=1, num_micro_batches=1, num_batches=1).dataset
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
    """Return the sum of a condition's hours as text; runs of equal length are one term."""
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
