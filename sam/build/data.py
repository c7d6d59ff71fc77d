"""From a config to data: the dataset and its batches.

Errors in files and values that can only be found here become a ConfigError.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sam.build.resolved import Resolved
from sam.config.augmentation import draws_per_batch
from sam.config.dataset import FILE_READERS, DatasetConfig
from sam.config.model import ModelConfig
from sam.config.schema import TrainConfig
from sam.data import datasets, file_datasets
from sam.data.augmentation import Augmentation, Normalization
from sam.data.auto_augment import AutoAugment
from sam.data.batches import EvaluationBatches, TrainBatches
from sam.data.image_files import ImageFiles
from sam.data.images import (
    Dataset,
    Images,
    Split,
    hold_out,
    shrink,
    spoil_labels,
    stratified_subset,
    with_true_labels,
)
from sam.data.label_files import labels_from_file
from sam.data.label_noise import SIMILAR_CLASSES, asymmetric_noise, symmetric_noise
from sam.data.loading import Loader, Prepare
from sam.data.policies import POLICIES, auto_augment, centre_crop, inception_crop
from sam.models.timm_network import pretrained_statistics
from sam.system.errors import user_errors
from sam.system.processes import this_process


def given(value: int | None) -> int:
    """Return the value, typed as an int: the config check has made sure that it is not None."""
    assert value is not None
    return value


def file_options(config: DatasetConfig) -> dict[str, Any]:
    """Return the config's options for decoding image files."""
    return {
        "image_size": given(config.image_size),
        "resize_size": config.resize_size or given(config.image_size),
        "interpolation": config.interpolation,
        "in_memory": config.in_memory,
    }


def read_files(name: str, config: DatasetConfig, root: pathlib.Path) -> Dataset:
    """Read one of torchvision's datasets of files."""
    return file_datasets.torchvision_files(name, root, download=config.download, **file_options(config))


READERS: dict[str, Callable[[DatasetConfig, pathlib.Path], Dataset]] = {
    "fashion_mnist_mini": lambda _, root: datasets.fashion_mnist_mini(),
    "fashion_mnist": lambda config, root: datasets.fashion_mnist(root, config.download, config.verify),
    "cifar10": lambda config, root: datasets.cifar("cifar10", root, config.download, config.verify),
    "cifar100": lambda config, root: datasets.cifar("cifar100", root, config.download, config.verify),
    "svhn": lambda config, root: datasets.svhn(root, config.download, config.verify, config.extra),
    "image_folder": lambda config, root: file_datasets.image_folder(root, **file_options(config)),
    "synthetic": lambda config, _: datasets.synthetic(
        given(config.num_train),
        given(config.num_test),
        given(config.image_size),
        given(config.num_classes),
    ),
}
READERS |= {name: partial(read_files, name) for name in FILE_READERS if name != "image_folder"}
# Largest number of pixels in an evaluation batch: it bounds the memory for large images.
EVALUATION_PIXELS = 500 * 64 * 64


def load_dataset(config: DatasetConfig, seed: int) -> Dataset:
    """Read the config's dataset, split off validation images, take subsets, and change labels."""
    if not config.verify and this_process().is_main:
        print(_unverified(config), file=sys.stderr, flush=True)
    with user_errors(f"dataset={config.name}"):
        full = READERS[config.reader](config, pathlib.Path(config.root).expanduser())
        if config.label_file is not None:
            path = pathlib.Path(config.label_file).expanduser()
            labels = labels_from_file(path, config.label_name, len(full.train), full.num_classes)
            full = dataclasses.replace(full, train=spoil_labels(full.train, labels))
        if config.validation != "none":
            full = hold_out(full, config.validation)
        train, test = full.train, full.test
        # The synthetic dataset already has the number of images that was asked for.
        is_made = config.reader == "synthetic"
        if config.num_train is not None and not is_made:
            train = _subset(config, full, config.num_train, seed)
        if config.num_test is not None and not is_made:
            test = test.take(stratified_subset(test.targets, config.num_test))
        if config.label_noise:
            train = spoil_labels(train, _noisy_labels(config, train.targets, full.num_classes, seed))
        if config.image_size is not None and isinstance(train, Images) and isinstance(test, Images):
            # Image files and synthetic images already have this size.
            train, test = shrink(train, config.image_size), shrink(test, config.image_size)
    return dataclasses.replace(full, train=train, test=test)


def _subset(config: DatasetConfig, full: Dataset, size: int, seed: int) -> Split:
    """Return the fixed subset of the training images, or that of a seed, which tuning does not use."""
    if config.subset_seed == "fixed":
        return full.train.take(stratified_subset(with_true_labels(full.train).targets, size))
    # Tuning holds out a random tenth, and trains on the fixed subset of the rest.
    train = hold_out(full, "random").train
    is_free = torch.ones(len(train), dtype=torch.bool)
    is_free[stratified_subset(with_true_labels(train).targets, size)] = False
    train = train.take(is_free.nonzero().squeeze(1))
    return train.take(stratified_subset(with_true_labels(train).targets, size, seed))


def _noisy_labels(config: DatasetConfig, targets: Tensor, num_classes: int, seed: int) -> Tensor:
    if config.label_noise_kind == "asymmetric":
        return asymmetric_noise(targets, SIMILAR_CLASSES[config.reader], config.label_noise, seed)
    return symmetric_noise(targets, num_classes, config.label_noise, seed, config.label_noise_over)


def _unverified(config: DatasetConfig) -> str:
    folder = pathlib.Path(config.root).expanduser().absolute()
    return (
        f"warning: dataset.verify=false: the checksums of {config.reader} in {folder} are not verified; "
        "results are marked as not verified"
    )


def make_normalization(config: ModelConfig, data: Dataset, where: torch.device) -> Normalization:
    """Return the normalisation of the dataset, or that of the pretrained weights if images are RGB."""
    mean, std = data.mean, data.std
    if config.weights is not None and data.num_channels == 3:
        mean, std = pretrained_statistics(config.timm_name or "")
    return Normalization(mean, std, data.train.shape[1], where)


def make_train_batches(config: TrainConfig, data: Dataset, resolved: Resolved) -> TrainBatches:
    """Return the training batches of a run."""
    chosen = config.augmentation
    augmentation = Augmentation(
        flip=chosen.flip,
        crop_padding=chosen.crop_padding,
        padding=chosen.padding,
        cutout_size=chosen.cutout_size,
        cutout_scope=chosen.cutout_scope,
    )
    with user_errors("data"):
        return TrainBatches(
            data.train,
            augmentation,
            make_normalization(config.model, data, resolved.device),
            device=resolved.device,
            batch_size=config.batch_size,
            seed=config.seed,
            num_classes=data.num_classes,
            mixup_alpha=chosen.mixup_alpha,
            m=resolved.m,
            repeats=config.dataset.repeats,
            auto_augment=_auto_augment(config, data.train, resolved),
            loader=_train_loader(config, data.train, resolved),
            rank=resolved.process.rank,
            world_size=resolved.process.size,
        )


def make_evaluation_batches(
    model: ModelConfig, data: Dataset, split: Split, resolved: Resolved
) -> EvaluationBatches:
    """Return the batches of a split for evaluation, without augmentation."""
    height, width, _ = split.shape
    num_pixels = (model.input_size or 0) ** 2 or height * width
    loader = None
    if isinstance(split, ImageFiles):
        loader = _loader(split, [_fitted(split)], resolved)
    return EvaluationBatches(
        split,
        make_normalization(model, data, resolved.device),
        device=resolved.device,
        batch_size=min(500, max(1, EVALUATION_PIXELS // num_pixels)),
        loader=loader,
        rank=resolved.process.rank,
        world_size=resolved.process.size,
    )


def _auto_augment(config: TrainConfig, split: Split, resolved: Resolved) -> AutoAugment | None:
    if not draws_per_batch(config.augmentation, config.dataset):
        return None
    return AutoAugment(POLICIES[config.augmentation.auto_augment], split.shape, resolved.device)


def _train_loader(config: TrainConfig, split: Split, resolved: Resolved) -> Loader | None:
    """Return the loader that prepares training images one by one; None if batches are made as a whole."""
    chosen = config.augmentation
    steps: list[Prepare] = []
    if isinstance(split, ImageFiles):
        crop = chosen.inception_crop
        steps.append(inception_crop(split.image_size, split.interpolation) if crop else _fitted(split))
    if chosen.auto_augment != "none" and not draws_per_batch(chosen, config.dataset):
        steps.append(auto_augment(chosen.auto_augment))
    return _loader(split, steps, resolved) if steps else None


def _fitted(split: ImageFiles) -> Prepare:
    return centre_crop(split.resize_size, split.image_size, split.interpolation)


def _loader(split: Split, steps: list[Prepare], resolved: Resolved) -> Loader:
    return Loader(split, steps, num_workers=resolved.workers, pin_memory=resolved.device.type == "cuda")
