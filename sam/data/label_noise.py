"""Symmetric label noise: a fraction of the training labels is replaced at random."""

import torch
from torch import Tensor

from sam.data.batches import generator_for

# The smallest shift, modulo the number of classes, that a chosen label may get.
LOWEST_SHIFT = {"other_classes": 1, "all_classes": 0}


def symmetric_noise(
    targets: Tensor, num_classes: int, fraction: float, seed: int, over: str = "other_classes"
) -> Tensor:
    """Replace exactly round(fraction * N) randomly chosen targets by random classes.

    Papers differ in the classes to draw from; Foret et al. do not say. With "other_classes" every replaced
    label is wrong, so `fraction` is the error rate of the labels. With "all_classes" about 1 in num_classes
    keeps its true class, so 40 % noise over 10 classes makes about 36 % of the labels wrong. One seed chooses
    the same labels in both cases.

    Args:
        targets: True classes, int64 [N]; left unchanged.
        num_classes: Number of classes; at least 2 if fraction > 0.
        fraction: Fraction of replaced labels, 0 <= fraction < 1.
        seed: Seed of the choice of labels and of their new classes.
        over: Classes to draw from with equal probability: "other_classes" or "all_classes".

    Returns:
        int64 [N].

    Raises:
        ValueError: If the fraction is out of range, there are too few classes, or `over` is unknown.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"label noise must be a fraction with 0 <= fraction < 1, got {fraction}")
    if fraction and num_classes < 2:
        raise ValueError(f"label noise needs at least 2 classes, got {num_classes}")
    if over not in LOWEST_SHIFT:
        raise ValueError(f"label noise is drawn over one of {', '.join(LOWEST_SHIFT)}, got {over}")
    generator = generator_for("label noise", seed)
    chosen = torch.randperm(len(targets), generator=generator)[: round(fraction * len(targets))]
    shift = torch.randint(LOWEST_SHIFT[over], max(num_classes, 2), (len(chosen),), generator=generator)
    noisy = targets.clone()
    noisy[chosen] = (targets[chosen] + shift) % num_classes
    return noisy
