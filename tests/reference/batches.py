"""The batches of an epoch, drawn step by step, one small tensor after the other."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from sam.data.augmentation import Augmentation, Normalization, shared_cutout
from sam.data.batches import Batch, generator_for
from sam.data.images import Images
from sam.data.mixup import draw_mixup, mix_images, mix_targets
from tests.reference.auto_augment import auto_augmented


def epoch_step_by_step(
    images: Images,
    augmentation: Augmentation,
    normalize: Normalization,
    *,
    epoch: int,
    batch_size: int,
    seed: int,
    num_classes: int,
    mixup_alpha: float = 0.0,
    m: int | None = None,
    repeats: int = 1,
    policy: str | None = None,
) -> Iterator[Batch]:
    """Yield the whole batches of an epoch; the arguments are those of TrainBatches, and a policy's name."""
    orders = generator_for("order", seed, epoch)
    order = torch.cat([torch.randperm(len(images), generator=orders) for _ in range(repeats)])
    for step in range(len(order) // batch_size):
        indices = order[step * batch_size : (step + 1) * batch_size]
        batch = images.take(indices)
        if policy is not None:
            changed = by_policy(policy, batch.pixels, ("auto_augment", seed, epoch, step))
            batch = dataclasses.replace(batch, pixels=changed)
        draws = torch.rand(5, batch_size, generator=generator_for("augmentation", seed, epoch, step))
        if augmentation.cutout_scope == "batch":
            draws = shared_cutout(draws)
        pixels = augmentation(batch, torch.arange(batch_size), draws, normalize)
        labels = [batch.targets, batch.clean_targets]
        if mixup_alpha:
            generator = generator_for("mixup", seed, epoch, step)
            lam, partners = draw_mixup(generator, mixup_alpha, batch_size, m or batch_size)
            pixels = mix_images(pixels, lam, partners)
            labels = [
                part if part is None else mix_targets(part, num_classes, lam, partners) for part in labels
            ]
        yield pixels, labels[0], labels[1]


def by_policy(policy: str, pixels: torch.Tensor, key: tuple[object, ...]) -> torch.Tensor:
    """Return images that AutoAugment has changed one after the other, uint8 [B, H, W, C]."""
    draws = torch.rand(7, len(pixels), generator=generator_for(*key)).T.tolist()
    pictures = [Image.fromarray(image.squeeze(2).numpy()) for image in pixels]
    changed = [auto_augmented(policy, picture, own) for picture, own in zip(pictures, draws, strict=True)]
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in changed])).view_as(pixels)
