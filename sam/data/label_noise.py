"""Symmetric label noise: a share of the training labels, each replaced by another class."""

import torch
from torch import Tensor

from sam.data.batches import generator_for


def symmetric_noise(targets: Tensor, num_classes: int, fraction: float, seed: int) -> Tensor:
    """Return targets of which exactly round(fraction * N) are wrong.

    Every wrong label is drawn evenly from the other classes, so `fraction` is the true error of the labels.
    (Papers differ here: where the draw may hit the true class, 40 % noise over 10 classes means 36 % wrong.)

    Args:
        targets: int64 [N], the true classes; left unchanged.
        num_classes: At least 2 if any label is to be wrong.
        fraction: 0 <= fraction < 1.
        seed: Decides which labels, and what they become.

    Returns:
        int64 [N].

    Raises:
        ValueError: If the fraction is out of range, or there is no other class to draw.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"label noise must be a fraction with 0 <= fraction < 1, got {fraction}")
    if fraction and num_classes < 2:
        raise ValueError(f"label noise needs at least 2 classes, got {num_classes}")
    generator = generator_for("label noise", seed)
    wrong = torch.randperm(len(targets), generator=generator)[: round(fraction * len(targets))]
    shift = torch.randint(1, max(num_classes, 2), (len(wrong),), generator=generator)
    noisy = targets.clone()
    noisy[wrong] = (targets[wrong] + shift) % num_classes
    return noisy
