"""Labelled images in memory, the one form in which every dataset reaches the trainer.

Axes: N images, H height, W width, C channels. Pixels are uint8 and channels come last, so that one pixel is
one run of bytes and a batch is already in the memory format that convolutions prefer.
"""

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Images:
    """One split of a dataset."""

    pixels: Tensor  # uint8 [N, H, W, C]
    targets: Tensor  # int64 [N], each in 0 .. num_classes - 1

    def __post_init__(self) -> None:
        # A batch is gathered row by row; CIFAR, for one, comes as a transposed view.
        object.__setattr__(self, "pixels", self.pixels.contiguous())

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> "Images":
        """Return the same images on a device."""
        return Images(self.pixels.to(device), self.targets.to(device))

    def take(self, indices: Tensor) -> "Images":
        """Return the images at the given positions, int64 [n]."""
        return Images(self.pixels[indices], self.targets[indices])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Training and test images with what is known about them."""

    train: Images
    test: Images
    class_names: tuple[str, ...]
    # Of the training pixels scaled to 0 .. 1, one number a channel.
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to(self, device: torch.device) -> "Dataset":
        """Return the same dataset with its images on a device."""
        return dataclasses.replace(self, train=self.train.to(device), test=self.test.to(device))

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def num_channels(self) -> int:
        """How many channels a pixel has."""
        return self.train.pixels.shape[3]


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
    one_hot = torch.nn.functional.one_hot(targets[order])
    rank = (one_hot.cumsum(0) * one_hot).sum(1)
    chosen = order[torch.argsort(rank, stable=True)[:size]]
    return chosen.sort().values
