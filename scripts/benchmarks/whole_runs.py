"""Whole runs without Hydra: their speed with data and logs, their bits, and several of them side by side.

A run is python -m scripts.benchmarks.whole_runs DIRECTORY CHANGES [--stepwise]. CHANGES are values by key in
JSON, as in config_of(). It trains like train.py, and continues from its checkpoint if there is one. It prints
the rows of metrics.csv in JSON: all at the end, or with --stepwise one after each epoch. Then it waits for a
line of input before the next epoch.
"""

import contextlib
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

import torch

from sam.build.data import load_dataset
from sam.build.network import draw_network, make_network
from sam.build.resolved import numerics, resolve
from sam.build.trainer import make_trainer
from sam.data.loading import end_workers
from sam.system.errors import first_line
from sam.training.distributed import World
from scripts.benchmarks.building import config_of
from scripts.benchmarks.device_speed import free
from scripts.benchmarks.plain_loop import plain_loader, plain_update
from scripts.benchmarks.timing import wait

ROOT = pathlib.Path(__file__).resolve().parents[2]
Changes = dict[str, Any]
Row = dict[str, Any]
Emit = Callable[[Row], None]  # takes a result as soon as it is there
Process = subprocess.Popen[str]
SIDE_BY_SIDE = (1, 2, 4, 8)


class WholeRun(NamedTuple):
    """A run of SAM on generated images."""

    model: str
    batch_size: int
    m: int
    num_train: int


CASES = (
    WholeRun("wrn_28_10", 256, 32, 10_240),
    WholeRun("wrn_28_10", 256, 256, 10_240),
    WholeRun("resnet20", 128, 128, 51_200),
)
REHEARSED = (WholeRun("resnet8", 8, 4, 32),)
TIMES = ("seconds", "images_per_second")  # columns of metrics.csv that are never the same
SECONDS_FOR_A_CHECKPOINT = 60


def train(directory: pathlib.Path, changes: Mapping[str, Any], steps: IO[str] | None = None) -> list[Row]:
    """Train one run to its end, from its checkpoint if there is one; return the rows of metrics.csv.

    Args:
        directory: The run's directory.
        changes: The config, see config_of().
        steps: Where to print the row of each epoch, before waiting for a line of input. None does neither.
    """
    config = config_of(changes)
    resolved = resolve(config)
    torch.set_num_threads(resolved.threads)
    directory.mkdir(parents=True, exist_ok=True)

    def after_epoch(_: int) -> None:
        print(json.dumps(trainer.progress.rows[-1]), file=steps, flush=True)
        if not sys.stdin.readline():
            raise SystemExit

    with numerics(resolved):
        data = load_dataset(config.dataset, config.seed)
        network = draw_network(config, data, resolved)
        inspect = None if steps is None else after_epoch
        never, world = (lambda: False), World()
        trainer = make_trainer(
            config, directory, data, network, resolved, world, never, inspect, average=None
        )
        try:
            if (state := trainer.store.load()) is not None:
                trainer.load(state)
            trainer.fit()
        finally:
            trainer.close()
            end_workers()
    return list(trainer.progress.rows)


def started(directory: pathlib.Path, changes: Changes, *options: str) -> Process:
    """Start a run in a new process."""
    command = [sys.executable, "-m", "scripts.benchmarks.whole_runs", str(directory), json.dumps(changes)]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *options], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def finished(process: Process) -> list[Row]:
    """Return the rows of a process's run at its end.

    Raises:
        RuntimeError: If the process failed.
    """
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a run ended with exit code {process.returncode}: {err.strip()[-1000:]}")
    rows: list[Row] = json.loads(out)
    return rows


def epochs(device: torch.device, emit: Emit) -> None:
    """Emit the speed of whole epochs with augmentation, logs and checkpoints, and of a plain loop."""
    for case in REHEARSED if device.type == "cpu" else CASES:
        row: Row = {"model": case.model, "m": case.m, "batch_size": case.batch_size}
        changes = _changes(device, case) | {"augmentation": "basic", "epochs": 2}
        try:
            with tempfile.TemporaryDirectory() as folder:
                rows = train(pathlib.Path(folder), changes | {"runtime.compile": device.type == "cuda"})
            row["images_per_second"] = round(rows[-1]["images_per_second"])  # the first epoch compiles
        except Exception as error:  # the others can still be measured
            row["failed"] = f"{type(error).__name__}: {first_line(error)}"
        emit(row)
        free(device)
    plain = REHEARSED[-1] if device.type == "cpu" else CASES[1]
    speed = _plain_images_per_second(device, plain)
    emit({"model": plain.model, "m": plain.m, "batch_size": plain.batch_size, "plain": speed})


def _plain_images_per_second(device: torch.device, case: WholeRun) -> int:
    """Return the speed of davda54's SAM in its usual loop, with a DataLoader on all cores."""
    changes = _changes(device, case) | {"augmentation": "basic", "runtime.precision": "fp32"}
    config = config_of(changes)
    resolved = resolve(config)
    data = load_dataset(config.dataset, config.seed)
    network = make_network(config.model, data, device).to(memory_format=torch.contiguous_format)
    update = plain_update(network, config, is_sam=True, m=case.m)
    loader = plain_loader(config, data, case.num_train, min(resolved.workers, 16))
    for _ in range(2):  # the first epoch starts the workers
        began = time.perf_counter()
        for images, targets in loader:
            update(images.to(device), targets.to(device))
        wait(device)
    return round(case.num_train / (time.perf_counter() - began))


def _changes(device: torch.device, case: WholeRun) -> Changes:
    """Return the config of a run of SAM on generated images; narrow and small on a CPU."""
    changes: Changes = {
        "dataset": "synthetic",
        "model": case.model,
        "batch_size": case.batch_size,
        "m": case.m,
        "dataset.num_train": case.num_train,
        "dataset.num_test": 100,
        "runtime.device": str(device),
        "runtime.precision": "bf16",
    }
    if device.type == "cpu":
        changes |= {"model.width": 4, "dataset.image_size": 12, "runtime.threads": 1}
    return changes


def determinism(device: torch.device, emit: Emit) -> None:
    """Emit whether equal runs, and a killed one, end with equal bits; and how far two runs drift without it.

    The runs share the device at the same time.

    Raises:
        RuntimeError: If bits differ that should be equal, or a run failed.
    """
    is_cpu = device.type == "cpu"
    case = WholeRun("resnet8", 8, 4, 80) if is_cpu else WholeRun("wrn_16_4", 128, 64, 1280)
    changes = _changes(device, case) | {"augmentation": "basic", "epochs": 2 if is_cpu else 6}
    fixed = {**changes, "runtime.deterministic": True}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        saves = {**fixed, "runtime.checkpoint_minutes": 1e-9}
        running = {"one": started(folder / "one", fixed), "two": started(folder / "two", fixed)}
        drifting = {name: started(folder / name, changes) for name in ("free one", "free two")}
        kill_after_a_checkpoint(started(folder / "killed", saves), folder / "killed")
        rows = {"killed": finished(started(folder / "killed", saves))}
        rows |= {name: finished(process) for name, process in (running | drifting).items()}
        weights = {name: _weights(folder / name) for name in rows}
    are_equal = True
    for what, other in (("the same command twice", "two"), ("killed and continued", "killed")):
        same = torch.equal(weights["one"], weights[other])
        same = same and _without_times(rows["one"]) == _without_times(rows[other])
        emit({"what": what, "equal": same, "distance": _distance(weights, "one", other)})
        are_equal = are_equal and same
    row = {
        "what": "not deterministic",
        "distance": _distance(weights, *drifting),
        "epochs": changes["epochs"],
    }
    emit(row | {"test_errors_pct": [rows[name][-1]["test_error_pct"] for name in drifting]})
    if not are_equal:
        raise RuntimeError("runtime.deterministic=true did not give the same bits")


def kill_after_a_checkpoint(process: Process, folder: pathlib.Path) -> None:
    """Kill a run as soon as it has saved in this folder or below it.

    Raises:
        RuntimeError: If the run ended before.
    """
    deadline = time.monotonic() + SECONDS_FOR_A_CHECKPOINT
    while not list(folder.rglob("checkpoint.pt")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    _, err = process.communicate()
    if process.returncode != -signal.SIGKILL or list(folder.rglob("result.json")):
        raise RuntimeError(f"a run ended before it was killed: {err.strip()[-1000:]}")


def _weights(directory: pathlib.Path) -> torch.Tensor:
    state = torch.load(directory / "checkpoint.pt", map_location="cpu", weights_only=True)
    return torch.cat([tensor.flatten().double() for tensor in state["model"].values()])


def _distance(weights: Mapping[str, torch.Tensor], one: str, other: str) -> float:
    """Return the length of the difference over the length of the weights."""
    return float(f"{((weights[one] - weights[other]).norm() / weights[one].norm()).item():.2e}")


def _without_times(rows: list[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def side_by_side(device: torch.device, emit: Emit) -> None:
    """Emit the images per second of each of 1, 2, 4 and 8 processes that train at the same time."""
    is_cpu = device.type == "cpu"
    numbers = SIDE_BY_SIDE[:2] if is_cpu else SIDE_BY_SIDE
    case = REHEARSED[0] if is_cpu else CASES[2]
    changes = _changes(device, case) | {"augmentation": "basic", "epochs": len(numbers) + 2}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        runs = []
        for number in range(numbers[-1]):
            runs.append(started(pathlib.Path(folder) / str(number), changes, "--stepwise"))
            stack.callback(runs[-1].communicate)
            stack.callback(runs[-1].kill)
        for run in runs:
            _next_row(run)
        for number in numbers:
            for run in runs[:number]:
                assert run.stdin is not None
                print(file=run.stdin, flush=True)
            speeds = [round(_next_row(run)["images_per_second"]) for run in runs[:number]]
            emit({"model": case.model, "processes": number, "images_per_second": speeds})


def _next_row(run: Process) -> Row:
    """Wait for the next row of a run.

    Raises:
        RuntimeError: If the run has failed.
    """
    assert run.stdout is not None
    line = run.stdout.readline()
    if not line:
        _, err = run.communicate()
        raise RuntimeError(f"a run ended with exit code {run.returncode}: {err.strip()[-1000:]}")
    row: Row = json.loads(line)
    return row


def main() -> None:
    """Train one run; see above."""
    directory, changes, *options = sys.argv[1:]
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        rows = train(pathlib.Path(directory), json.loads(changes), out if options == ["--stepwise"] else None)
    if not options:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
