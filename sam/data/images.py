"""Labelled images in memory, and the dataset: two splits, each in memory or in image files.

Axes: N images in memory, H height, W width, C channels. Pixels are uint8, and channels come last: the bytes
of a pixel are adjacent, and a batch is already in channels_last, the fastest memory format for convolutions.
"""

import dataclasses
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from sam.data.image_files import ImageFiles


@dataclasses.dataclass(frozen=True)
class Images:
    """One split of a dataset, in memory."""

    pixels: Tensor  # uint8 [N, H, W, C]
    targets: Tensor  # int64 [N], each in 0 .. num_classes - 1: the labels to train on
    clean_targets: Tensor | None = None  # int64 [N], the true labels; None if targets are the true labels

    def __post_init__(self) -> None:
        # Batches are gathered by rows of contiguous pixels. CIFAR, for example, comes as a transposed view.
        object.__setattr__(self, "pixels", self.pixels.contiguous())

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = self.pixels.shape[1:]
        return height, width, channels

    def to(self, device: torch.device) -> "Images":
        """Return the same images on a device."""
        clean = None if self.clean_targets is None else self.clean_targets.to(device)
        return Images(self.pixels.to(device), self.targets.to(device), clean)

    def take(self, indices: Tensor) -> "Images":
        """Return the images at the given positions, int64 [n]."""
        clean = None if self.clean_targets is None else self.clean_targets[indices]
        return Images(self.pixels[indices], self.targets[indices], clean)

    def picture(self, index: int) -> Image.Image:
        """Return one image as a PIL image, greyscale or RGB."""
        return Image.fromarray(self.pixels[index].squeeze(2).numpy())


Split: TypeAlias = Images | ImageFiles


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Training and test images, class names, and statistics."""

    train: Split
    test: Split
    class_names: tuple[str, ...]
    # Of the training pixels scaled to 0 .. 1, one number per channel.
    mean: tuple[float, ...]
    std: tuple[float, ...]
    # Number of training images at the end that the released code of the SAM paper holds out; None: a tenth.
    num_validation: int | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def num_channels(self) -> int:
        """The number of channels of an image."""
        return self.train.shape[2]


def spoil_labels(split: Split, labels: Tensor) -> Split:
    """Return a split with these labels to train on, int64 [N]; it keeps the true labels too."""
    true = split.targets if split.clean_targets is None else split.clean_targets
    return dataclasses.replace(split, targets=labels, clean_targets=true)


def with_true_labels(split: Split) -> Split:
    """Return a split that has its true labels as targets."""
    true = split.targets if split.clean_targets is None else split.clean_targets
    return dataclasses.replace(split, targets=true, clean_targets=None)


def hold_out(data: Dataset, how: str) -> Dataset:
    """Return a dataset whose test images are a fixed part of the training images, for choosing rho.

    Args:
        data: The whole dataset. The held-out images get their true labels.
        how: "last" holds out the last images, as the released code of the SAM paper does (5,000 of CIFAR).
            "random" holds out a random tenth, the same in every run, as the paper does for noisy labels.

    Raises:
        ValueError: If there are too few training images.
    """
    size = len(data.train)
    if how == "last":
        num_held_out = data.num_validation or round(size / 10)
        order = torch.arange(size)
    else:
        num_held_out = round(size / 10)
        order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    if not 0 < num_held_out < size:
        raise ValueError(f"dataset.validation={how}: {size} training images are too few to hold some out")
    kept, held_out = order[:-num_held_out].sort().values, order[-num_held_out:].sort().values
    held_out_images = with_true_labels(data.train.take(held_out))
    return dataclasses.replace(data, train=data.train.take(kept), test=held_out_images)


def shrink(images: Images, size: int) -> Images:
    """Return the same images with fewer pixels, interpolated linearly with antialiasing.

    Args:
        images: Square images.
        size: Height and width of the result, in pixels.

    Raises:
        ValueError: If the images are smaller than that.
    """
    own_size = images.shape[0]
    if size > own_size:
        raise ValueError(
            f"dataset.image_size={size}: the images have {own_size} x {own_size} pixels and can only be "
            "shrunk; leave it null"
        )
    # In parts, since the resize converts to float32, which takes four times the memory.
    parts = images.pixels.permute(0, 3, 1, 2).split(500)
    shrunk = torch.cat([functional.resize(part, [size, size], antialias=True) for part in parts])
    return dataclasses.replace(images, pixels=shrunk.permute(0, 2, 3, 1))


def stratified_subset(targets: Tensor, size: int, seed: int = 0) -> Tensor:
    """Choose images with equal shares of every class, the same ones on every call with one seed.

    A larger subset contains every smaller one. The classes differ by at most one image, if each has enough.

    Args:
        targets: int64 [N], the class of each image.
        size: Number of images to choose, 1 .. N.
        seed: Seed of the choice, at least 0.

    Returns:
        int64 [size], positions in ascending order.

    Raises:
        ValueError: If there are fewer than `size` images.
    """
    if size > len(targets):
        raise ValueError(f"{size} images were asked for, but there are {len(targets)}; ask for fewer")
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    # The rank of an image is its position in `order` among the images of its class. Low ranks come first.
    by_class = torch.argsort(targets[order], stable=True)
    sizes = torch.bincount(targets)
    rank = torch.empty_like(by_class)
    rank[by_class] = torch.arange(len(targets)) - (sizes.cumsum(0) - sizes)[targets[order][by_class]]
    chosen = order[torch.argsort(rank, stable=True)[:size]]
    return chosen.sort().values
