"""Readers of datasets of image files: any image folder, and the paper's fine-tuning sets from torchvision.

The readers list the files. The images stay on disk and are decoded when they are needed, or are all decoded
into memory at once. A reader raises FileNotFoundError (what is missing, and how to provide it) or ValueError
(which file is faulty).

mean and std: measured on the training images if they are in memory. Otherwise those of ImageNet, since
networks to fine-tune were trained with them.
"""

import os
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor

from sam.data.image_files import ImageFiles
from sam.data.images import Dataset, Images
from sam.system.errors import MissingDataset

IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Path and class of each image.
Samples = list[tuple[str, int]]


def image_folder(
    root: pathlib.Path, *, image_size: int, resize_size: int, interpolation: str, in_memory: bool
) -> Dataset:
    """Read ROOT/train/CLASS/* and ROOT/test/CLASS/* as RGB, resized by the shorter side, centre-cropped.

    If there is no ROOT/test, ROOT/val is read instead: the layout of ImageNet.

    Args:
        root: The folder above train and test (or val), which have one folder per class.
        image_size: Height and width in pixels.
        resize_size: Shorter side before the crop in pixels, at least image_size.
        interpolation: bilinear or bicubic.
        in_memory: Whether to decode all images now.

    Raises:
        FileNotFoundError: If a folder is missing, or a class has no image.
        ValueError: If the splits have different classes, or a file decoded now is not an image.
    """
    train_folder, test_folder = _folder(root, "train"), _folder(root, "test", "val")
    train, test = _list_folder(train_folder), _list_folder(test_folder)
    if train.classes != test.classes:
        differing = ", ".join(sorted(set(train.classes) ^ set(test.classes)))
        raise ValueError(f"{root}: classes of train and {test_folder.name} differ: {differing}")
    prepared = partial(
        ImageFiles, image_size=image_size, resize_size=resize_size, interpolation=interpolation
    )
    return _dataset(train.samples, test.samples, train.classes, prepared, in_memory)


def _folder(root: pathlib.Path, *names: str) -> pathlib.Path:
    """Return the first of these folders that exists."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    places = " or ".join(str(root.absolute() / name) for name in names)
    raise FileNotFoundError(
        f"an image folder needs {places} with one folder of images per class; "
        "make it, or name another folder with dataset.root=..."
    )


def _list_folder(folder: pathlib.Path) -> Any:
    try:
        return torchvision.datasets.ImageFolder(folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder.absolute()}: {error}") from error


def _list_split(reader: type, root: pathlib.Path, split: str, download: bool) -> tuple[Samples, list[str]]:
    """List a split of a torchvision dataset without opening its images: its loader just returns the path."""
    images = reader(root, split=split, download=download, loader=str)
    samples = (images[index] for index in range(len(images)))
    return [(path, int(target)) for path, target in samples], images.classes


def _list_pets(root: pathlib.Path, split: str, download: bool) -> tuple[Samples, list[str]]:
    """List a split of Oxford-IIIT Pet from its annotation file, since its class accepts no loader."""
    classes = torchvision.datasets.OxfordIIITPet(root, split=split, download=download).classes
    folder = root / "oxford-iiit-pet"
    lines = (folder / "annotations" / f"{split}.txt").read_text().splitlines()
    # Columns: image, class (counted from 1), and two numbers about the species.
    rows = [line.split() for line in lines]
    return [(str(folder / "images" / f"{row[0]}.jpg"), int(row[1]) - 1) for row in rows], classes


class _Source(NamedTuple):
    """The folder of a torchvision dataset, and how to list its splits."""

    title: str
    folder: str
    listed: Callable[[pathlib.Path, str, bool], tuple[Samples, list[str]]]
    # torchvision's splits that make up the training images; the other split is test.
    training: tuple[str, ...]
    provide: str = "Download it (network and dataset.download=true), or put a copy there"


SOURCES = {
    "fgvc_aircraft": _Source(
        "FGVC-Aircraft",
        "fgvc-aircraft-2013b",
        partial(_list_split, torchvision.datasets.FGVCAircraft),
        ("trainval",),
    ),
    "flowers102": _Source(
        "Oxford Flowers-102",
        "flowers-102",
        partial(_list_split, torchvision.datasets.Flowers102),
        ("train", "val"),
    ),
    "oxford_iiit_pet": _Source("Oxford-IIIT Pet", "oxford-iiit-pet", _list_pets, ("trainval",)),
    "stanford_cars": _Source(
        "Stanford Cars",
        "stanford_cars",
        partial(_list_split, torchvision.datasets.StanfordCars),
        ("train",),
        "Its website no longer exists: copy cars_train/*.jpg, cars_test/*.jpg, "
        "cars_test_annos_withlabels.mat, devkit/cars_train_annos.mat and devkit/cars_meta.mat there "
        "(https://github.com/pytorch/vision/issues/7545 lists sources, such as "
        "https://www.kaggle.com/datasets/rickyyyyyyy/torchvision-stanford-cars)",
    ),
    "food101": _Source(
        "Food-101", "food-101", partial(_list_split, torchvision.datasets.Food101), ("train",)
    ),
}


def torchvision_files(
    name: str,
    root: pathlib.Path,
    *,
    download: bool,
    image_size: int,
    resize_size: int,
    interpolation: str,
    in_memory: bool,
) -> Dataset:
    """Read one of the paper's fine-tuning sets from the folder in ROOT where torchvision keeps it.

    Training and test images: FGVC-Aircraft (100 variants) 6,667 + 3,333, Oxford Flowers-102 (training and
    validation together) 2,040 + 6,149, Oxford-IIIT Pet (37 breeds) 3,680 + 3,669, Stanford Cars (196 models)
    8,144 + 8,041, Food-101 75,750 + 25,250.

    Args:
        name: A key of SOURCES.
        root: The folder above the dataset's folder.
        download: Whether torchvision may download a missing dataset.
        image_size: Height and width in pixels.
        resize_size: Shorter side before the crop in pixels, at least image_size.
        interpolation: bilinear or bicubic.
        in_memory: Whether to decode all images now.

    Raises:
        FileNotFoundError: If the lists or some of their images are missing.
        ValueError: If a file decoded now is not an image.
    """
    source = SOURCES[name]
    parts = [_list_or_fetch(source, root, split, download) for split in (*source.training, "test")]
    train = [sample for samples, _ in parts[:-1] for sample in samples]
    test, classes = parts[-1]
    missing = [path for path, _ in train + test if not os.path.exists(path)]
    if missing:
        raise FileNotFoundError(
            f"{source.title} is incomplete, images missing: {len(missing)}, the first {missing[0]}; "
            f"delete {(root / source.folder).absolute()} and its archive, and provide the dataset again"
        )
    prepared = partial(
        ImageFiles, image_size=image_size, resize_size=resize_size, interpolation=interpolation
    )
    return _dataset(train, test, classes, prepared, in_memory)


def _list_or_fetch(
    source: _Source, root: pathlib.Path, split: str, download: bool
) -> tuple[Samples, list[str]]:
    """List a split; download it first if it is missing and that is allowed."""
    try:
        return source.listed(root, split, False)
    except Exception as error:  # broken lists and archives can raise almost anything
        problem = f"dataset.download=false: {error}"
    if download:
        try:
            return source.listed(root, split, True)
        except Exception as error:
            problem = f"the download failed: {error}"
    folder = (root / source.folder).absolute()
    raise MissingDataset(
        f"{source.title} is not there: {folder} is missing or incomplete ({problem}). "
        f"{source.provide}, or name the folder above {source.folder} with dataset.root=..."
    )


def _dataset(
    train_samples: Samples,
    test_samples: Samples,
    classes: list[str],
    prepared: Callable[[tuple[str, ...], Tensor], ImageFiles],
    in_memory: bool,
) -> Dataset:
    train, test = (
        prepared(tuple(path for path, _ in samples), torch.tensor([target for _, target in samples]))
        for samples in (train_samples, test_samples)
    )
    if not in_memory:
        return Dataset(train, test, tuple(classes), *IMAGENET_STATISTICS)
    pixels = train.decoded()
    return Dataset(
        Images(pixels, train.targets),
        Images(test.decoded(), test.targets),
        tuple(classes),
        *_statistics(pixels),
    )


def _statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of each channel of pixels scaled to 0 .. 1, from counts of the 256 grey levels."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in pixels.flatten(0, 2).unbind(1):
        share = torch.bincount(channel, minlength=256).double() / len(channel)
        mean.append(float(share @ levels))
        # At least one grey level, so that a blank channel does not divide by zero.
        std.append(max(float(share @ (levels - mean[-1]) ** 2) ** 0.5, 1 / 255))
    return tuple(mean), tuple(std)
