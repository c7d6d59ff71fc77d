"""From images in memory to the batches of an epoch, a pure function of seed, epoch and step.

Nothing here has a state to save: whoever knows the epoch and the step gets the same batch again. Every
process draws for the whole batch and takes its share, so the images of an update do not depend on how many
processes there are.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from sam.data.augmentation import NUM_DRAWS, Augmentation, Normalization
from sam.data.images import Images


def generator_for(*key: object) -> torch.Generator:
    """Return a CPU generator that depends on nothing but the key, such as ("order", seed, epoch)."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


class TrainBatches:
    """The shuffled, augmented batches of every epoch; the rest that fills no batch is dropped.

    Args:
        images: The training split, on the device that trains.
        augmentation: What is drawn for every image.
        normalize: Made for this split's image width and device.
        batch_size: Images per update over all processes; a multiple of world_size.
        seed: Of the order and of the draws.
        rank: Number of this process, 0 .. world_size - 1.
        world_size: How many processes share a batch.

    Raises:
        ValueError: If the images fill no batch, or the processes cannot share one evenly.
    """

    def __init__(
        self,
        images: Images,
        augmentation: Augmentation,
        normalize: Normalization,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(images) < batch_size:
            raise ValueError(
                f"batch_size={batch_size}, but there are only {len(images)} training images; lower batch_size"
            )
        if batch_size % world_size:
            raise ValueError(
                f"batch_size={batch_size} cannot be shared by {world_size} processes; choose a multiple"
            )
        augmentation.check(*images.pixels.shape[1:3])
        self.images = images
        self.steps_per_epoch = len(images) // batch_size
        self._augmentation = augmentation
        self._normalize = normalize
        self.batch_size = batch_size
        self._seed = seed
        share = batch_size // world_size
        self._share = slice(rank * share, (rank + 1) * share)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's share of each batch from a step on.

        Args:
            epoch: Number of the epoch; each has its own order and draws.
            first_step: Where to begin, 0 .. steps_per_epoch.

        Yields:
            Images, float32 [B, C, H, W] in channels_last format, and targets, int64 [B].
        """
        device = self.images.targets.device
        order = torch.randperm(len(self.images), generator=generator_for("order", self._seed, epoch))
        for step in range(first_step, self.steps_per_epoch):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size]
            draws = torch.rand(
                NUM_DRAWS,
                self.batch_size,
                generator=generator_for("augmentation", self._seed, epoch, step),
            )
            indices = indices[self._share].to(device, non_blocking=True)
            draws = draws[:, self._share].to(device, non_blocking=True)
            batch = self._augmentation(self.images, indices, draws, self._normalize)
            yield batch, self.images.targets[indices]


def evaluation_batches(
    images: Images, normalize: Normalization, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every image of this process's share once, as it is, in order; the last batch may be smaller.

    Shares are rank, rank + world_size, ...: together they are the split, each image exactly once.

    Yields:
        Images, float32 [B, C, H, W] in channels_last format, and targets, int64 [B].
    """
    pixels, targets = images.pixels[rank::world_size], images.targets[rank::world_size]
    for rows, batch_targets in zip(
        pixels.flatten(2).split(batch_size), targets.split(batch_size), strict=True
    ):
        batch = normalize(rows).view(len(rows), *pixels.shape[1:])
        yield batch.permute(0, 3, 1, 2), batch_targets
