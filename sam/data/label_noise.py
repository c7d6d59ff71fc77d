"""Symmetric label noise: a share of the training labels, each replaced at random."""

import torch
from torch import Tensor

from sam.data.batches import generator_for

# The smallest shift, modulo the number of classes, that a chosen label may get.
LOWEST_SHIFT = {"other_classes": 1, "all_classes": 0}


def symmetric_noise(
    targets: Tensor, num_classes: int, fraction: float, seed: int, over: str = "other_classes"
) -> Tensor:
    """Return targets of which exactly round(fraction * N), chosen at random, are drawn anew.

    Papers differ in what they are drawn from; Foret et al. do not say. With "other_classes" every one of them
    is wrong, so `fraction` is the true error of the labels. With "all_classes" about 1 in num_classes keeps
    its true class, so 40 % noise over 10 classes means that about 36 % are wrong. A seed chooses the same
    labels in both.

    Args:
        targets: int64 [N], the true classes; left unchanged.
        num_classes: At least 2 if any label is to be drawn.
        fraction: 0 <= fraction < 1.
        seed: Decides which labels, and what they become.
        over: What they are drawn from evenly: "other_classes" or "all_classes".

    Returns:
        int64 [N].

    Raises:
        ValueError: If the fraction is out of range, there is no other class to draw, or `over` is unknown.
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
