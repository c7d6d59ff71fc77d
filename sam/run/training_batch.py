"""The figure "batch" of scripts/figure.py: augmented training images, as the network gets them."""

import dataclasses
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sam.build.data import load_dataset, make_normalization, make_train_batches
from sam.build.resolved import resolve
from sam.config.schema import TrainConfig
from sam.data.augmentation import Normalization
from sam.figures.batch import draw_sheet

MAX_IMAGES = 64


def draw_batch(config: TrainConfig) -> Figure:
    """Draw the first augmented training images of epoch 0 with their labels, at most 64.

    Args:
        config: A run's config.
    """
    config.runtime.workers = 0  # the images do not depend on it, and one batch does not take long
    resolved = resolve(config, device_name="cpu")
    data = load_dataset(config.dataset, config.seed)
    batches = make_train_batches(config, data, resolved)
    images, targets, _ = next(batches.epoch(0))
    normalize = make_normalization(config.model, data, resolved.device)
    chosen = dataclasses.asdict(config.augmentation)
    keys = ", ".join(f"{key}={value}".lower() for key, value in chosen.items() if key != "name")
    return draw_sheet(
        pictures(images[:MAX_IMAGES], normalize).numpy(),
        captions(targets[:MAX_IMAGES], data.class_names),
        f"{config.dataset.name}, augmentation {config.augmentation.name}: {keys}",
    )


def pictures(images: Tensor, normalize: Normalization) -> Tensor:
    """Return normalised images, [B, C, H, W], as float [B, H, W, 3] in 0 .. 1."""
    colours = images.permute(0, 2, 3, 1) * torch.tensor(normalize.std) + torch.tensor(normalize.mean)
    return colours.clamp(0, 1).expand(-1, -1, -1, 3)


def captions(targets: Tensor, class_names: Sequence[str]) -> list[str]:
    """Return the class name of each image; for soft targets, [B, K], one line per class with its weight."""
    if targets.dim() == 1:
        return [class_names[target] for target in targets.tolist()]
    shares = [
        sorted(((share, name) for share, name in zip(row, class_names, strict=True) if share), reverse=True)
        for row in targets.tolist()
    ]
    return ["\n".join(f"{share:.2f} {name}" for share, name in row) for row in shares]
