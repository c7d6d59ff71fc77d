"""The one worker: one run, from config to result.json, in this process (or its part of it)."""

import datetime
import pathlib
import platform
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import sam
from sam import build
from sam.config import ConfigError, TrainConfig
from sam.data.batches import evaluation_batches
from sam.data.images import Dataset
from sam.run_directory import clear, identity, locked, path_of, write_config, write_result
from sam.training.checkpoint import CheckpointStore
from sam.training.distributed import World, start_world
from sam.training.evaluation import Evaluation, evaluate
from sam.training.loop import Interrupted, Trainer, load_model
from sam.training.precision import Precision

EVALUATION_BATCH_SIZE = 500


def run(config: TrainConfig, command: str) -> dict[str, Any]:
    """Train one run to its end, from its checkpoint if there is one, and write its result.

    Args:
        config: A checked config.
        command: What continues this run, for the message to the user.

    Returns:
        What result.json holds.

    Raises:
        ConfigError: If the machine, the data or the run directory do not allow it.
        SystemExit: 128 + the signal's number, if SIGTERM or SIGINT asked to stop; the state is saved.
    """
    device = build.device(config.runtime.device, config.runtime.precision)
    if config.runtime.threads is not None:
        torch.set_num_threads(config.runtime.threads)
    world = start_world(device)
    directory = path_of(config)
    with _stopped_by_signals() as stop:
        if not world.is_main:
            return _train(config, directory, device, world, stop, command)
        with locked(directory):
            if config.force:
                clear(directory)
            return _train(config, directory, device, world, stop, command)


def _train(
    config: TrainConfig,
    directory: pathlib.Path,
    device: torch.device,
    world: World,
    stop: "StopRequest",
    command: str,
) -> dict[str, Any]:
    """Build, train, write the result."""
    _reset_peak_memory(device)
    store = CheckpointStore(directory)
    state = _load(store)
    data = build.dataset(config.dataset, config.seed)
    torch.manual_seed(config.seed)
    network = build.model(config.model, data, device)
    trainer = _trainer(config, directory, data, network, store, device, world, stop)
    if state is not None:
        with build.user_errors(str(directory)):
            trainer.load(state)
    if world.is_main:
        write_config(directory, config, command)
    try:
        complete = trainer.fit()
    except Interrupted as interruption:
        if world.is_main:
            print(f"stopped and saved; continue with: {command}", file=sys.stderr, flush=True)
        raise SystemExit(128 + stop.signal_number) from interruption
    finally:
        trainer.close()
    result = _result(config, trainer, network, device, world, complete)
    if world.is_main:
        write_result(directory, result)
        store.drop_previous()
    return result


def _trainer(
    config: TrainConfig,
    directory: pathlib.Path,
    data: Dataset,
    network: nn.Module,
    store: CheckpointStore,
    device: torch.device,
    world: World,
    stop: "StopRequest",
) -> Trainer:
    precision = Precision(config.runtime.precision, device)
    called: nn.Module = network
    if config.runtime.compile:
        called = torch.compile(called)  # type: ignore[assignment]
    if world.size > 1:
        called = DistributedDataParallel(called, broadcast_buffers=False)
    batches = build.train_batches(config, data, device, world)
    loggers = build.loggers(config, directory, batches.steps_per_epoch) if world.is_main else []
    return Trainer(
        model=network,
        update=build.update(config, network, called, precision),
        batches=batches,
        evaluate=partial(
            evaluate_split, network, data, "test", device=device, precision=precision, world=world
        ),
        epochs=config.epochs,
        base_lr=config.optimizer.lr,
        store=store,
        loggers=loggers,
        world=world,
        device=device,
        checkpoint_seconds=60 * config.runtime.checkpoint_minutes,
        stop_requested=stop.is_set,
    )


def evaluate_split(
    network: nn.Module,
    data: Dataset,
    split: str,
    *,
    device: torch.device,
    precision: Precision,
    world: World,
) -> Evaluation:
    """Evaluate a network on the test or train split, without augmentation."""
    images = (data.test if split == "test" else data.train).to(device)
    batches = evaluation_batches(
        images, build.normalization(data, device), EVALUATION_BATCH_SIZE, world.rank, world.size
    )
    return evaluate(
        network,
        batches,
        num_classes=data.num_classes,
        device=device,
        precision=precision,
        world=world,
    )


def evaluate_run(
    config: TrainConfig, directory: pathlib.Path, split: str, device_name: str
) -> tuple[int, list[str], Evaluation]:
    """Evaluate the newest checkpoint of a run on the test or train split.

    The train split has the labels that the run was trained on, with their noise.

    Returns:
        Epochs that were complete, the names of the classes, and the evaluation.

    Raises:
        ConfigError: If there is no readable checkpoint, no data or no such device.
    """
    device = build.device(device_name)
    state = _load(CheckpointStore(directory))
    if state is None:
        raise ConfigError(f"run={directory} has no checkpoint yet; train it first")
    data = build.dataset(config.dataset, config.seed)
    network = build.model(config.model, data, device)
    with build.user_errors(str(directory)):
        load_model(network, state)
    precision = Precision(config.runtime.precision, device)
    evaluation = evaluate_split(network, data, split, device=device, precision=precision, world=World())
    return state["progress"]["epoch"], list(data.class_names), evaluation


def _load(store: CheckpointStore) -> dict[str, Any] | None:
    """Return the state to continue from; tell of a damaged checkpoint in one line."""
    with warnings.catch_warnings(record=True) as caught, build.user_errors("checkpoint"):
        warnings.simplefilter("always")
        state = store.load()
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    return state


class StopRequest:
    """Remembers that a signal asked to stop; a second one stops at once."""

    def __init__(self) -> None:
        self.signal_number = 0

    def is_set(self) -> bool:
        """Return whether a signal came."""
        return self.signal_number != 0

    def handle(self, signal_number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self.is_set():
            raise KeyboardInterrupt
        self.signal_number = signal_number


@contextmanager
def _stopped_by_signals() -> Iterator[StopRequest]:
    """Let SIGTERM and Ctrl-C ask for a stop while a run trains."""
    request = StopRequest()
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, request.handle) for number in signals]
    try:
        yield request
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _result(
    config: TrainConfig,
    trainer: Trainer,
    network: nn.Module,
    device: torch.device,
    world: World,
    complete: bool,
) -> dict[str, Any]:
    """Return what result.json says."""
    rows = trainer.progress.rows
    last = rows[-1]
    best = min(rows, key=lambda row: row["test_error_pct"])
    message = "" if complete else f"loss is not finite after step {last['step']}; try a lower lr or rho"
    is_sam = config.optimizer.name == "sam"
    return {
        "status": "complete" if complete else "diverged",
        "message": message,
        "identity": identity(config),
        "seed": config.seed,
        "dataset": config.dataset.name,
        "model": config.model.name,
        "augmentation": config.augmentation.name,
        "optimizer": config.optimizer.name,
        "rho": config.optimizer.rho if is_sam else None,
        "epochs": config.epochs,
        **{
            key: _finite(last[key])
            for key in (
                "test_error_pct",
                "test_top5_error_pct",
                "test_loss",
                "train_error_pct",
                "train_loss",
            )
        },
        # A note only: choosing the epoch on the test set makes this too low.
        "best": {"epoch": best["epoch"], "test_error_pct": best["test_error_pct"]},
        "num_parameters": sum(weight.numel() for weight in network.parameters()),
        "steps": trainer.num_steps_done,
        "forward_backward_passes": trainer.num_steps_done * trainer.num_passes,
        "seconds": round(trainer.progress.total_seconds, 2),
        "images_per_second": round(
            sum(row["images_per_second"] * row["seconds"] for row in rows)
            / sum(row["seconds"] for row in rows),
            1,
        ),
        "peak_memory_mib": round(_peak_memory_mib(device), 1),
        "ended_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": {
            "sam": sam.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": config.runtime.precision,
        "threads": torch.get_num_threads(),
        "processes": world.size,
    }


def _finite(value: float) -> float | None:
    """Return a number that JSON can hold, or None."""
    return value if abs(value) < float("inf") else None


def commit() -> str | None:
    """Return the git commit of this code, with "+changes" if files differ from it; None outside git."""
    here = pathlib.Path(__file__).parent
    git: Callable[..., str] = partial(
        subprocess.check_output, cwd=here, text=True, stderr=subprocess.DEVNULL, timeout=10
    )
    try:
        number = git(["git", "rev-parse", "--short=12", "HEAD"]).strip()
        changed = git(["git", "status", "--porcelain", "--untracked-files=no", "--", ".", "../configs"])
    except (OSError, subprocess.SubprocessError):
        return None
    return number + ("+changes" if changed.strip() else "")


def _reset_peak_memory(device: torch.device) -> None:
    """Start a new maximum, since the runs of a sweep share a process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        try:
            pathlib.Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass  # a container may forbid it; the maximum is then that of the process


def _peak_memory_mib(device: torch.device) -> float:
    """Return the largest memory so far: allocated on the GPU, or resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "linux":
        status = pathlib.Path("/proc/self/status").read_text()
        return float(status.split("VmHWM:")[1].split()[0]) / 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
