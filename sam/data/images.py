"""Labelled images: those in memory, and the dataset that holds two splits of them or of image files.

Axes: N images in memory, H height, W width, C channels. Pixels are uint8 and channels come last, so that one
pixel is one run of bytes and a batch is already in the memory format that convolutions prefer.
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
    clean_targets: Tensor | None = None  # int64 [N], where those were spoiled; None: they are the true ones

    def __post_init__(self) -> None:
        # A batch is gathered row by row; CIFAR, for one, comes as a transposed view.
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
        """Return one image for work that wants it so; grey or RGB."""
        return Image.fromarray(self.pixels[index].squeeze(2).numpy())


Split: TypeAlias = Images | ImageFiles


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Training and test images with what is known about them."""

    train: Split
    test: Split
    class_names: tuple[str, ...]
    # Of the training pixels scaled to 0 .. 1, one number a channel.
    mean: tuple[float, ...]
    std: tuple[float, ...]
    # How many of the last training images the released code of the SAM paper holds out; None: a tenth.
    num_validation: int | None = None

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def num_channels(self) -> int:
        """How many channels a pixel has."""
        return self.train.shape[2]


def spoil_labels(split: Split, labels: Tensor) -> Split:
    """Return a split to be trained on these labels, int64 [N], which remembers the true ones."""
    true = split.targets if split.clean_targets is None else split.clean_targets
    return dataclasses.replace(split, targets=labels, clean_targets=true)


def with_true_labels(split: Split) -> Split:
    """Return a split with its true labels, whatever was to be trained on."""
    true = split.targets if split.clean_targets is None else split.clean_targets
    return dataclasses.replace(split, targets=true, clean_targets=None)


def hold_out(data: Dataset, how: str) -> Dataset:
    """Return a dataset whose test images are a fixed part of the training images, for choosing rho.

    Args:
        data: The whole of it; what is held out has its true labels, whatever is trained on.
        how: last: the last images, as the released code of the SAM paper does (5,000 of CIFAR). random: a
            tenth drawn at random, the same one in every run, as the paper does for noisy labels.

    Raises:
        ValueError: If nothing would be left, or held out.
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
        images: Square ones.
        size: Height and width of the result, in pixels.

    Raises:
        ValueError: If that is more than they have.
    """
    own_size = images.shape[0]
    if size > own_size:
        raise ValueError(
            f"dataset.image_size={size}: the images have {own_size} x {own_size} pixels and are only ever "
            "shrunk; leave it null"
        )
    # Some hundred at a time: the resize works in float32.
    parts = images.pixels.permute(0, 3, 1, 2).split(500)
    shrunk = torch.cat([functional.resize(part, [size, size], antialias=True) for part in parts])
    return dataclasses.replace(images, pixels=shrunk.permute(0, 2, 3, 1))


def stratified_subset(targets: Tensor, size: int) -> Tensor:
    """Choose images with equal shares of every class, the same ones on every call.

    A smaller subset is always contained in a larger one. Classes differ by at most one image as long as
    each has enough.

    Args:
        targets: int64 [N], the class of each image.
        size: How many to choose, 1 .. N.

    Returns:
        int64 [size], positions in ascending order.

    Raises:
        ValueError: If there are fewer than `size` images.
    """
    if size > len(targets):
        raise ValueError(f"{size} images were asked for, but there are {len(targets)}; ask for fewer")
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    # Rank of each image among those of its class, in that order; the lowest ranks are taken first.
    by_class = torch.argsort(targets[order], stable=True)
    sizes = torch.bincount(targets)
    rank = torch.empty_like(by_class)
    rank[by_class] = torch.arange(len(targets)) - (sizes.cumsum(0) - sizes)[targets[order][by_class]]
    chosen = order[torch.argsort(rank, stable=True)[:size]]
    return chosen.sort().values
