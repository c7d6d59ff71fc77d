"""The runs that repeat conditions, and similar runs on random images.

A condition (a cell of results/paper/cells.csv, or a line of configs/tiers.yaml) becomes one run per
alternative and seed. A bootstrapped condition also needs the runs that predict its labels. Runs with the same
directory are one run, even if two conditions need it. Imports no torch.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sam.config.composer import composed_quickly, quoted
from sam.config.dataset import FILE_READERS
from sam.config.schema import TrainConfig
from sam.paper.conditions import Condition
from sam.record.identity import path_of
from sam.system.errors import ConfigError


class DatasetSize(NamedTuple):
    """The size of a dataset, so that the files are not needed to know it.

    Attributes:
        num_train, num_test: Numbers of images.
        num_classes: Number of classes.
        num_pixels: Height and width of the images; None if all configs set dataset.image_size.
    """

    num_train: int
    num_test: int
    num_classes: int
    num_pixels: int | None = None


SIZES = {
    "cifar10": DatasetSize(50_000, 10_000, 10, 32),
    "cifar100": DatasetSize(50_000, 10_000, 100, 32),
    "svhn": DatasetSize(604_388, 26_032, 10, 32),
    "fashion_mnist": DatasetSize(60_000, 10_000, 10, 28),
    "fashion_mnist_mini": DatasetSize(5_000, 5_000, 10, 28),
    "imagenet": DatasetSize(1_281_167, 50_000, 1000),
    "fgvc_aircraft": DatasetSize(6_667, 3_333, 100),
    "flowers102": DatasetSize(2_040, 6_149, 102),
    "oxford_iiit_pet": DatasetSize(3_680, 3_669, 37),
    "stanford_cars": DatasetSize(8_144, 8_041, 196),
    "food101": DatasetSize(75_750, 25_250, 101),
    "birdsnap": DatasetSize(47_386, 2_443, 500),
}


class PlannedRun(NamedTuple):
    """One run of a plan.

    Attributes:
        overrides: The overrides of train.py.
        config: The composed config.
        directory: The run directory.
    """

    overrides: tuple[str, ...]
    config: TrainConfig
    directory: pathlib.Path


def runs_of(cell: Condition, seeds: Sequence[int], more: Sequence[str] = ()) -> list[PlannedRun]:
    """Return the runs of a condition; a run that needs another one comes after it.

    Args:
        cell: The condition.
        seeds: The seeds of each alternative.
        more: Overrides for all runs, such as outputs=FOLDER; they replace those of the cell.
    """
    runs = []
    for alternative in alternatives(cell, more) or [""]:
        overrides = (*cell.overrides, *filter(None, [alternative]), *more)
        if not cell.labels_from:
            runs += _with_seeds(overrides, composed_quickly(overrides), seeds)
            continue
        key = cell.labels_from.partition("=")[0]
        others = tuple(text for text in overrides if not text.startswith(f"{key}="))
        sources = _with_seeds(
            (*others, cell.labels_from), composed_quickly((*others, cell.labels_from)), seeds
        )
        # The label noise belongs to the runs that predict the labels, not to this one.
        own = tuple(text for text in overrides if not text.startswith("dataset.label_noise_over="))
        config = composed_quickly(own)
        for source, seed in zip(sources, seeds, strict=True):
            path = str(source.directory.absolute())
            dataset = dataclasses.replace(config.dataset, relabel_from=path)
            relabelled = dataclasses.replace(config, dataset=dataset)
            labels = f"dataset.relabel_from={quoted(path)}"
            runs += [source, *_with_seeds((*own, labels), relabelled, [seed])]
    return runs


def alternatives(cell: Condition, more: Sequence[str]) -> list[str]:
    """Return the alternatives of a condition, except those for keys that the overrides already set."""
    keys = {text.partition("=")[0] for text in more}
    return [text for text in cell.alternatives if text.partition("=")[0] not in keys]


def unique(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """Return the runs without duplicates; of runs with the same directory, the first stays."""
    first: dict[pathlib.Path, PlannedRun] = {}
    for run in runs:
        first.setdefault(run.directory, run)
    return list(first.values())


def num_updates(config: TrainConfig) -> int:
    """Return the number of updates in a run of the paper's tables."""
    size = _size(config)
    num_train = config.dataset.num_train or size.num_train
    if config.dataset.validation != "none" and config.dataset.num_train is None:
        num_train -= round(num_train / 10)
    return config.epochs * (num_train * config.dataset.repeats // config.batch_size)


def num_evaluated(config: TrainConfig) -> int:
    """Return the total number of images that a run evaluates over all epochs."""
    size = _size(config)
    num_test = size.num_test if config.dataset.validation == "none" else round(size.num_train / 10)
    return max(1, config.epochs) * (config.dataset.num_test or num_test)


def on_random_data(
    config: TrainConfig, *, m: int, num_micro_batches: int, num_batches: int, largest_size: int | None = None
) -> TrainConfig:
    """Return the config of a similar run on random images; the arguments set their number and size.

    The labels and the initial weights are random too, so the run needs no files and no other run. For
    datasets that are read from image folders, the caller must set dataset.root.

    Args:
        config: The config of a run of the paper's tables.
        m: Images per micro-batch.
        num_micro_batches: Micro-batches per batch.
        num_batches: Smallest number of batches per epoch.
        largest_size: Largest height and width of images and network input, in pixels; None for no limit.
    """
    size = _size(config)
    batch_size = m * num_micro_batches
    from_files = config.dataset.reader in FILE_READERS
    pixels = _at_most(config.dataset.image_size or size.num_pixels, largest_size)
    dataset = dataclasses.replace(
        config.dataset,
        reader="image_folder" if from_files else "synthetic",
        num_train=-(-batch_size * num_batches * 10 // 9) + 1,  # a tenth may be held out
        num_test=2 * m,
        num_classes=size.num_classes,
        image_size=pixels,
        resize_size=pixels if from_files else None,
        repeats=1,
        relabel_from=None,
        label_file=None,
        label_name=None,
        extra=True,
        verify=True,
    )
    model = dataclasses.replace(
        config.model, weights=None, input_size=_at_most(config.model.input_size, largest_size)
    )
    return dataclasses.replace(config, dataset=dataset, model=model, m=m, batch_size=batch_size)


def _with_seeds(overrides: Sequence[str], config: TrainConfig, seeds: Iterable[int]) -> list[PlannedRun]:
    configs = [dataclasses.replace(config, seed=seed) for seed in seeds]
    return [PlannedRun((*overrides, f"seed={seeded.seed}"), seeded, path_of(seeded)) for seeded in configs]


def _size(config: TrainConfig) -> DatasetSize:
    if config.dataset.name not in SIZES:
        raise ConfigError(
            f"dataset={config.dataset.name}: its size is not known here; allowed is {', '.join(SIZES)}"
        )
    size = SIZES[config.dataset.name]
    return size if config.dataset.extra else size._replace(num_train=73_257)  # only SVHN has extra images


def _at_most(value: int | None, limit: int | None) -> int | None:
    return value if value is None or limit is None else min(value, limit)
