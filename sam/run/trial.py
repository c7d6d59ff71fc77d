"""A trial of a run: a few updates and an evaluation on generated images, with their time and memory."""

import math
import pathlib
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from PIL import Image
from torch import nn

from sam.build.data import load_dataset, make_train_batches
from sam.build.evaluation import make_evaluation
from sam.build.network import make_network
from sam.build.resolved import Resolved, numerics, resolve
from sam.build.update import make_update
from sam.config.model import ModelConfig
from sam.config.schema import TrainConfig
from sam.data.images import Dataset
from sam.data.loading import end_workers
from sam.system.machine import peak_memory_mib, reset_peak_memory
from sam.training.distributed import World
from sam.training.update import Update

Result = TypeVar("Result")


class Trial(NamedTuple):
    """The measurements of a trial.

    Attributes:
        test_loss: Loss after the updates; nan or inf if training has diverged.
        update_seconds: Median time of one update, without the first update; nan without updates.
        evaluation_seconds: Time to evaluate one image.
        peak_memory_mib: Peak memory: allocated on the GPU, or resident in this process.
        device: Description of the device.
    """

    test_loss: float
    update_seconds: float
    evaluation_seconds: float
    peak_memory_mib: float
    device: str


def run_trial(config: TrainConfig, num_updates: int) -> Trial:
    """Build all parts of a run except the run directory, make some updates and evaluate.

    Args:
        config: A config with synthetic images or an image folder; its dataset.root must exist.
        num_updates: Number of updates; 0 only evaluates.

    Raises:
        ConfigError: If device, dataset or model cannot be used.
    """
    resolved = resolve(config)
    torch.set_num_threads(resolved.threads)
    reset_peak_memory(resolved.device)
    data = load_dataset(config.dataset, config.seed)
    torch.manual_seed(config.seed)
    network = make_network(config.model, data, resolved.device)
    update = make_update(
        config.optimizer,
        network,
        network,
        resolved,
        num_steps=max(num_updates, 1),
        label_smoothing=config.label_smoothing,
    )
    try:
        with numerics(resolved):
            times = _time_updates(config, data, resolved, update, num_updates)
            evaluation_seconds, test_loss = _time_evaluation(config.model, data, resolved, network)
    finally:
        end_workers()
    return Trial(
        test_loss=test_loss,
        update_seconds=statistics.median(times[1:] or times) if times else math.nan,
        evaluation_seconds=evaluation_seconds,
        peak_memory_mib=peak_memory_mib(resolved.device),
        device=_describe(resolved.device),
    )


def write_images(folder: pathlib.Path, num_train: int, num_test: int, num_classes: int) -> None:
    """Write small random pictures in the layout of image_folder; picture i has class i mod num_classes."""
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", num_train), ("test", num_test)):
        for number in range(count):
            path = folder / split / f"{number % num_classes:04d}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = torch.randint(256, (16, 16, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(path)


def _time_updates(
    config: TrainConfig, data: Dataset, resolved: Resolved, update: Update, num_updates: int
) -> list[float]:
    times: list[float] = []
    if not num_updates:
        return times
    batches = make_train_batches(config, data, resolved)
    for step, (images, targets, clean) in zip(range(num_updates), batches.epoch(0), strict=False):
        train = partial(update, images, targets, config.optimizer.lr, clean, step)
        times.append(_timed(resolved.device, train)[0])
    return times


def _time_evaluation(
    model: ModelConfig, data: Dataset, resolved: Resolved, network: nn.Module
) -> tuple[float, float]:
    """Return the seconds per image, and the loss."""
    test = make_evaluation(model, data, data.test, network, resolved, World())
    seconds, evaluation = _timed(resolved.device, test)
    return seconds / evaluation.num_images, evaluation.loss


def _timed(device: torch.device, run: Callable[[], Result]) -> tuple[float, Result]:
    started = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, result


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"
