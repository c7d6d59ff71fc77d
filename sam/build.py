"""The one bridge from config to objects: names in, dataset, model, optimizer, rule and loggers out.

Mistakes in files and values that show only here become a ConfigError.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from sam.config import MODEL_OPTIONS, ConfigError, DatasetConfig, ModelConfig, TrainConfig
from sam.data import datasets
from sam.data.augmentation import Augmentation, Normalization
from sam.data.batches import TrainBatches
from sam.data.images import Dataset, stratified_subset
from sam.data.label_noise import symmetric_noise
from sam.logs.console import ConsoleLog
from sam.logs.csv_log import CsvLog
from sam.logs.tensorboard import TensorBoardLog
from sam.models.cifar_resnet import CifarResNet
from sam.models.gates import Gate, set_true_gradient
from sam.models.pyramidnet import PyramidNet
from sam.models.shake_shake import ShakeShakeNet
from sam.models.wide_cifar_resnet import WideCifarResNet
from sam.models.wide_resnet import WideResNet
from sam.optim import SAM
from sam.training.distributed import World
from sam.training.loop import Logger
from sam.training.precision import Precision
from sam.training.rule import ForwardBackward, Rule, SAMRule, SGDRule
from sam.training.running_statistics import RunningStatistics
from sam.training.update import Update


def given(value: int | None) -> int:
    """Return a number that the config's check has made sure of."""
    assert value is not None
    return value


READERS: dict[str, Callable[[DatasetConfig, pathlib.Path], Dataset]] = {
    "fashion_mnist_mini": lambda _, root: datasets.fashion_mnist_mini(),
    "fashion_mnist": lambda config, root: datasets.fashion_mnist(root, config.download),
    "cifar10": lambda config, root: datasets.cifar("cifar10", root, config.download),
    "cifar100": lambda config, root: datasets.cifar("cifar100", root, config.download),
    "image_folder": lambda config, root: datasets.image_folder(root, given(config.image_size)),
    "synthetic": lambda config, _: datasets.synthetic(
        given(config.num_train),
        given(config.num_test),
        given(config.image_size),
        given(config.num_classes),
    ),
}
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "cifar_resnet": CifarResNet,
    "wide_cifar_resnet": WideCifarResNet,
    "wide_resnet": WideResNet,
    "shake_shake": ShakeShakeNet,
    "pyramidnet": PyramidNet,
}


@contextmanager
def user_errors(key: str) -> Iterator[None]:
    """Turn what readers and constructors say about files and values into a ConfigError that names a key."""
    try:
        yield
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from error


def device(name: str, precision: str = "fp32", key: str = "runtime.device") -> torch.device:
    """Return the device that a config names; auto is the GPU if there is one.

    Under torchrun each process takes the GPU of its local rank.
    """
    gpu = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    chosen = {"auto": gpu if torch.cuda.is_available() else "cpu", "cuda": gpu}.get(name, name)
    try:
        where = torch.device(chosen)
        torch.empty(0, device=where)
        usable = where.type in ("cpu", "cuda")
    except (RuntimeError, AssertionError):
        usable = False
    if not usable:
        raise ConfigError(
            f"{key}={name}: not usable here; allowed is auto, cpu, or cuda where there is a GPU"
        )
    if precision == "tf32" and where.type != "cuda":
        raise ConfigError(
            f"runtime.precision=tf32 needs a GPU, and the device is {where}; use runtime.precision=fp32"
        )
    return where


def dataset(config: DatasetConfig, seed: int) -> Dataset:
    """Read a dataset, take the subsets it names and spoil the labels it wants spoiled."""
    with user_errors(f"dataset={config.name}"):
        full = READERS[config.reader](config, pathlib.Path(config.root).expanduser())
        train, test = full.train, full.test
        if config.num_train is not None:
            train = train.take(stratified_subset(train.targets, config.num_train))
        if config.num_test is not None:
            test = test.take(stratified_subset(test.targets, config.num_test))
        noisy = symmetric_noise(train.targets, full.num_classes, config.label_noise, seed)
    return dataclasses.replace(full, train=dataclasses.replace(train, targets=noisy), test=test)


def normalization(data: Dataset, where: torch.device) -> Normalization:
    """Return the normalisation of a dataset."""
    return Normalization(data.mean, data.std, data.train.pixels.shape[2], where)


def train_batches(config: TrainConfig, data: Dataset, where: torch.device, world: World) -> TrainBatches:
    """Return the training batches of a run."""
    chosen = config.augmentation
    augmentation = Augmentation(
        flip=chosen.flip,
        crop_padding=chosen.crop_padding,
        padding=chosen.padding,
        cutout_size=chosen.cutout_size,
    )
    with user_errors("data"):
        batches = TrainBatches(
            data.train,
            augmentation,
            normalization(data, where),
            batch_size=config.batch_size,
            seed=config.seed,
            rank=world.rank,
            world_size=world.size,
        )
    if config.m and (config.batch_size // world.size) % config.m:
        raise ConfigError(
            f"m={config.m} does not divide the {config.batch_size // world.size} images of each of "
            f"{world.size} processes; choose a divisor or m=null"
        )
    return batches


def model(config: ModelConfig, data: Dataset, where: torch.device) -> nn.Module:
    """Return a freshly drawn network in training mode; draws come from torch's global generator."""
    with user_errors(f"model={config.name}"):
        network = ARCHITECTURES[config.architecture](
            depth=config.depth,
            width=config.width,
            in_channels=data.num_channels,
            num_classes=data.num_classes,
            **{option: getattr(config, option) for option in MODEL_OPTIONS[config.architecture]},
        )
    return network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def update(config: TrainConfig, network: nn.Module, called: nn.Module, precision: Precision) -> Update:
    """Return optimizer, rule and update of a run.

    Args:
        config: Of the run.
        network: Holds the parameters and buffers.
        called: What is called to get logits: the network itself, compiled, or wrapped.
        precision: Of the passes.
    """
    forward_backward = ForwardBackward(called, precision, RunningStatistics(network), config.label_smoothing)
    chosen = config.optimizer
    base: dict[str, Any] = {
        "lr": chosen.lr,
        "momentum": chosen.momentum,
        "nesterov": chosen.nesterov,
        "weight_decay": chosen.weight_decay,
    }
    rule: Rule
    if chosen.name == "sam":
        sam = SAM(network.parameters(), torch.optim.SGD, rho=chosen.rho, adaptive=chosen.adaptive, **base)
        # Setting it walks over all layers in every micro-batch: only where there is a gate to set.
        gated = any(isinstance(layer, Gate) for layer in network.modules())
        true_gradient = partial(set_true_gradient, network) if gated and chosen.true_gradient else None
        rule = SAMRule(forward_backward, sam, true_gradient=true_gradient, replay=chosen.replay)
    else:
        rule = SGDRule(forward_backward, torch.optim.SGD(network.parameters(), **base))
    return Update(rule, forward_backward, config.m, chosen.clip_norm)


def loggers(config: TrainConfig, directory: pathlib.Path, steps_per_epoch: int) -> list[Logger]:
    """Return the loggers of the main process."""
    label = "/".join(directory.parts[-5:-1]) + f" seed {config.seed}"
    return [
        CsvLog(directory / "metrics.csv"),
        TensorBoardLog(directory / "tensorboard"),
        ConsoleLog(label, config.epochs, steps_per_epoch),
    ]
