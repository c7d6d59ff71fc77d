"""The batches of an epoch, a pure function of seed, epoch and step.

There is no state to save: the same epoch and step give the same batch again. Every process draws for the
whole batch and takes its share, so the images of an update do not depend on the number of processes.

Images come from one of two places: from memory on the training device, where AutoAugment may change them
(auto_augment.py), or from worker processes, which decode files or apply AutoAugment (loading.py). All later
steps are the same for both. The host never waits for the device: it draws for many steps ahead and copies the
draws from pinned memory.
"""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sam.data.augmentation import NUM_DRAWS, Augmentation, Normalization, shared_cutout
from sam.data.auto_augment import NUM_DRAWS as NUM_POLICY_DRAWS
from sam.data.auto_augment import AutoAugment
from sam.data.images import Images, Split
from sam.data.loading import Loader, Request
from sam.data.mixup import draw_mixup, mix_images, mix_targets
from sam.data.transfer import send

LARGEST_SEED = 2**63 - 1
# Bytes of images that AutoAugment changes at once: on a GPU many, on a CPU what fits into its cache.
GPU_BYTES_AT_ONCE = 2**23
BYTES_AT_ONCE = 2**19
STEPS_AHEAD = 64  # whose draws go to the device together
Batch = tuple[Tensor, Tensor, Tensor | None]


def generator_for(*key: object) -> torch.Generator:
    """Return a CPU generator whose seed is a hash of the key, such as ("order", seed, epoch)."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


class TrainBatches:
    """The shuffled, augmented batches of every epoch; an incomplete last batch is dropped.

    Args:
        split: The training split; images in memory are moved to the device.
        augmentation: Flip, crop and cutout.
        normalize: Must have the image width of this split, and the same device.
        device: The training device.
        batch_size: Images per update over all processes; a multiple of world_size.
        seed: Seed of the order and of the augmentation.
        num_classes: Number K of classes; mixup makes soft targets of this width.
        mixup_alpha: Parameter of mixup's beta distribution; 0 turns mixup off.
        m: Images per micro-batch; must divide the process's share of a batch. None means the whole share.
        repeats: How often an epoch uses each image.
        auto_augment: Changes the images in memory before all other steps; None leaves them as they are.
        loader: Prepares the images in worker processes; None takes them from memory.
        rank: Rank of this process, 0 .. world_size - 1.
        world_size: Number of processes that share a batch.

    Raises:
        ValueError: If there are too few images for one batch, or batch_size is not a multiple of world_size.
    """

    def __init__(
        self,
        split: Split,
        augmentation: Augmentation,
        normalize: Normalization,
        *,
        device: torch.device,
        batch_size: int,
        seed: int,
        num_classes: int,
        mixup_alpha: float = 0.0,
        m: int | None = None,
        repeats: int = 1,
        auto_augment: AutoAugment | None = None,
        loader: Loader | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        size = len(split) * repeats
        if size < batch_size:
            raise ValueError(
                f"batch_size={batch_size}, but there are only {size} training images; lower batch_size"
            )
        augmentation.check(*split.shape[:2])
        self._split = split if loader else split.to(device)
        self._loader = loader
        self._auto_augment = auto_augment
        self.steps_per_epoch = size // batch_size
        self._augmentation = augmentation
        self._normalize = normalize
        self._device = device
        self.batch_size = batch_size
        self._seed = seed
        self._num_classes = num_classes
        self._mixup_alpha = mixup_alpha
        self._repeats = repeats
        self._share = _share(batch_size, rank, world_size)
        self._m = m or batch_size // world_size

    @property
    def uses_workers(self) -> bool:
        """Whether a loader prepares the images one by one, in worker processes if there are any."""
        return self._loader is not None

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield this process's share of each batch, beginning at a step.

        Args:
            epoch: Number of the epoch; each epoch has its own order and augmentation.
            first_step: Step of the first batch, 0 .. steps_per_epoch.

        Yields:
            Images, float32 [B, C, H, W] in channels_last format. Targets, int64 [B], or with mixup float32
            [B, K]. Clean targets in the same format if the labels were changed, else None.
        """
        orders = generator_for("order", self._seed, epoch)
        order = torch.cat([torch.randperm(len(self._split), generator=orders) for _ in range(self._repeats)])
        batches = order[: self.steps_per_epoch * self.batch_size].view(-1, self.batch_size)[first_step:]
        steps = range(first_step, self.steps_per_epoch)
        sources = self._sources(epoch, steps, batches[:, self._share])
        draws, mixing = self._draws(epoch, steps), self._mixing(epoch, steps)
        for (images, indices), own_draws, mix in zip(sources, draws, mixing, strict=True):
            batch = self._augmentation(images, indices, own_draws, self._normalize)
            clean = None if images.clean_targets is None else images.clean_targets[indices]
            yield self._mixed(batch, images.targets[indices], clean, mix)

    def _draws(self, epoch: int, steps: range) -> Iterator[Tensor]:
        """Yield, for each step, the draws for flip, crop and cutout, [5, b], on the device."""

        def draw(step: int) -> Tensor:
            generator = generator_for("augmentation", self._seed, epoch, step)
            draws = torch.rand(NUM_DRAWS, self.batch_size, generator=generator)
            if self._augmentation.cutout_scope == "batch":
                draws = shared_cutout(draws)
            return draws[:, self._share]

        for some in _ahead(steps):
            yield from send(torch.stack([draw(step) for step in some]), self._device)

    def _mixing(self, epoch: int, steps: range) -> Iterator[tuple[float, Tensor] | None]:
        """Yield, for each step, lambda and partners of mixup, int64 [b], on the device; or None."""
        if not self._mixup_alpha:
            yield from itertools.repeat(None, len(steps))
            return
        for some in _ahead(steps):
            generators = [generator_for("mixup", self._seed, epoch, step) for step in some]
            drawn = [draw_mixup(one, self._mixup_alpha, self.batch_size, self._m) for one in generators]
            partners = torch.stack([partners[self._share] - self._share.start for _, partners in drawn])
            yield from zip([lam for lam, _ in drawn], send(partners, self._device), strict=True)

    def _sources(self, epoch: int, steps: range, batches: Tensor) -> Iterator[tuple[Images, Tensor]]:
        """Yield, for each step, images on the device and the positions of the batch in them.

        Args:
            epoch: Number of the epoch.
            steps: The steps.
            batches: Positions in the split of this process's images, int64 [steps, b].
        """
        if self._loader is None:
            assert isinstance(self._split, Images)
            batches = send(batches, self._device)
            if self._auto_augment is None:
                yield from ((self._split, indices) for indices in batches)
            else:
                yield from self._auto_augmented(self._auto_augment, self._split, epoch, steps, batches)
            return
        everything = torch.arange(self._share.stop - self._share.start, device=self._device)
        requests = [self._request(epoch, *pair) for pair in zip(steps, batches, strict=True)]
        for (indices, _), pieces in zip(requests, self._loader(requests), strict=True):
            yield _on_device(pieces, self._split, indices, self._device), everything

    def _auto_augmented(
        self, policy: AutoAugment, split: Images, epoch: int, steps: range, batches: Tensor
    ) -> Iterator[tuple[Images, Tensor]]:
        """Yield what _sources() yields, with changed images of several batches at once."""
        batch_bytes = batches.shape[1] * math.prod(split.shape)
        at_once = GPU_BYTES_AT_ONCE if self._device.type == "cuda" else BYTES_AT_ONCE
        size = max(1, at_once // batch_bytes)
        for first in range(0, len(steps), size):
            indices = batches[first : first + size]
            draws = [self._policy_draws(epoch, step) for step in steps[first : first + size]]
            images = split.take(indices.flatten())
            pixels = policy(images.pixels, torch.cat(draws, dim=1))
            images = dataclasses.replace(images, pixels=pixels)
            everything = torch.arange(indices.numel(), device=self._device).view_as(indices)
            yield from ((images, positions) for positions in everything)

    def _policy_draws(self, epoch: int, step: int) -> Tensor:
        generator = generator_for("auto_augment", self._seed, epoch, step)
        return torch.rand(NUM_POLICY_DRAWS, self.batch_size, generator=generator)[:, self._share]

    def _request(self, epoch: int, step: int, indices: Tensor) -> Request:
        generator = generator_for("prepare", self._seed, epoch, step)
        seeds = torch.randint(LARGEST_SEED, (self.batch_size,), generator=generator)
        return indices, seeds[self._share]

    def _mixed(
        self, images: Tensor, targets: Tensor, clean: Tensor | None, mix: tuple[float, Tensor] | None
    ) -> Batch:
        if mix is None:
            return images, targets, clean
        lam, permutation = mix
        soft = mix_targets(targets, self._num_classes, lam, permutation)
        if clean is not None:
            clean = mix_targets(clean, self._num_classes, lam, permutation)
        return mix_images(images, lam, permutation), soft, clean


def _ahead(steps: range) -> Iterator[range]:
    return (steps[first : first + STEPS_AHEAD] for first in range(0, len(steps), STEPS_AHEAD))


def _share(batch_size: int, rank: int, world_size: int) -> slice:
    """Return the positions in a batch of one process's images."""
    size, rest = divmod(batch_size, world_size)
    if rest:
        raise ValueError(
            f"batch_size={batch_size} cannot be shared by {world_size} processes; choose a multiple of "
            f"{world_size}"
        )
    return slice(rank * size, (rank + 1) * size)


class EvaluationBatches:
    """Every image of this process's share once, in order and unaugmented; the last batch may be smaller.

    The share of a process is the images rank, rank + world_size, ...: each image is in exactly one share.

    Args:
        split: The images; those in memory are moved to the device, once.
        normalize: Must have the image width of this split, and the same device.
        device: The device of the network.
        batch_size: Images per batch.
        loader: Decodes files in worker processes; None takes images from memory.
        rank: Rank of this process, 0 .. world_size - 1.
        world_size: Number of processes that share the split.
    """

    def __init__(
        self,
        split: Split,
        normalize: Normalization,
        *,
        device: torch.device,
        batch_size: int,
        loader: Loader | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._split = split if loader else split.to(device)
        own = torch.arange(len(split))[rank::world_size]
        if loader is None:
            own = send(own, device)
        # A process without images must have no batch; split() would make an empty one.
        self._indices = own.split(batch_size) if len(own) else ()
        self._normalize = normalize
        self._device = device
        self._loader = loader

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, float32 [B, C, H, W] in channels_last format, and targets, int64 [B]."""
        for images in self._sources():
            height, width, channels = images.shape
            rows = self._normalize(images.pixels.flatten(2))
            yield rows.view(-1, height, width, channels).permute(0, 3, 1, 2), images.targets

    def _sources(self) -> Iterator[Images]:
        if self._loader is None:
            assert isinstance(self._split, Images)
            for indices in self._indices:
                yield self._split.take(indices)
            return
        requests = [(indices, torch.zeros_like(indices)) for indices in self._indices]
        for indices, pieces in zip(self._indices, self._loader(requests), strict=True):
            yield _on_device(pieces, self._split, indices, self._device)


def _on_device(pieces: list[Tensor], split: Split, indices: Tensor, device: torch.device) -> Images:
    """Copy the images that workers prepared, and their labels, to the device."""
    labels = (split.targets, split.clean_targets)
    targets, clean = (None if part is None else send(part[indices], device) for part in labels)
    assert targets is not None
    return Images(torch.cat([piece.to(device, non_blocking=True) for piece in pieces]), targets, clean)
