"""Checks of a copy of a dataset whose checksums are not verified: numbers, shapes and labels."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from sam.data.images import Dataset, Images


class Content(NamedTuple):
    """Numbers of training and test images; height, width and channels of an image; number of classes."""

    num_train: int
    num_test: int
    shape: tuple[int, int, int]
    num_classes: int


CONTENTS = {
    "fashion_mnist": Content(60_000, 10_000, (28, 28, 1), 10),
    "cifar10": Content(50_000, 10_000, (32, 32, 3), 10),
    "cifar100": Content(50_000, 10_000, (32, 32, 3), 100),
    "svhn": Content(73_257, 26_032, (32, 32, 3), 10),
    "svhn with extra": Content(604_388, 26_032, (32, 32, 3), 10),
}


def check_copy(name: str, root: Path, data: Dataset) -> None:
    """Make sure that an unverified copy has the numbers of images, shapes and labels of the original.

    Args:
        name: A key of CONTENTS.
        root: The folder that was read, for messages.
        data: The images that were read.

    Raises:
        ValueError: If something differs.
    """
    content = CONTENTS[name]
    if data.num_classes != content.num_classes:
        raise ValueError(
            f"{root.absolute()} has names of {data.num_classes} classes; {name} has {content.num_classes}"
        )
    sizes = (content.num_train, content.num_test)
    for split, images, size in zip(("training", "test"), (data.train, data.test), sizes, strict=True):
        assert isinstance(images, Images), "only datasets in memory have checksums"
        _check_images(f"{root.absolute()}: the {split} images", images, (size, *content.shape))
        lowest, highest = int(images.targets.min()), int(images.targets.max())
        if lowest < 0 or highest >= content.num_classes:
            raise ValueError(
                f"{root.absolute()}: the {split} labels go from {lowest} to {highest}; {name} has the labels "
                f"0 to {content.num_classes - 1}"
            )


def _check_images(title: str, images: Images, expected: tuple[int, ...]) -> None:
    shape = tuple(images.pixels.shape)
    if images.pixels.dtype != torch.uint8 or shape != expected:
        kind = str(images.pixels.dtype).removeprefix("torch.")
        raise ValueError(f"{title} are {kind} {list(shape)}; the original has uint8 {list(expected)}")
    if len(images.targets) != len(images.pixels):
        raise ValueError(f"{title} have {len(images.targets)} labels; there are {len(images.pixels)} images")


@contextmanager
def readable(path: Path, kind: str = "") -> Iterator[None]:
    """Turn every error of a library that reads a file into a ValueError that names the file.

    Args:
        path: The file.
        kind: What it is read as, for the message, such as " as a file of CIFAR".
    """
    try:
        yield
    except Exception as error:  # torchvision, scipy and pickle raise a dozen types for a damaged file
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path.absolute()} cannot be read{kind}: {reason}") from error
