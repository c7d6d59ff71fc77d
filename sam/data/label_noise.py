"""Label noise: a fraction of the training labels is replaced, by random or by similar classes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sam.data.batches import generator_for

# The smallest shift, modulo the number of classes, that a chosen label may get.
LOWEST_SHIFT = {"other_classes": 1, "all_classes": 0}

# CIFAR-10: truck to automobile, bird to airplane, deer to horse, cat to dog and dog to cat.
_CIFAR10 = (0, 1, 0, 5, 7, 3, 6, 7, 8, 1)
# The superclass of each class of CIFAR-100, as in the field coarse_labels of its files.
_CIFAR100_SUPERCLASSES = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11),
    *(6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5),
    *(5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17),
    *(10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13),
    *(16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)


def _next_of_superclass(superclasses: Sequence[int]) -> tuple[int, ...]:
    """Return the next class with the same superclass for each class; after the last one comes the first."""
    members = [[c for c, found in enumerate(superclasses) if found == own] for own in superclasses]
    return tuple(group[(group.index(c) + 1) % len(group)] for c, group in enumerate(members))


# The similar class of each class, by dataset. A class that is its own similar class keeps its labels.
SIMILAR_CLASSES = {"cifar10": _CIFAR10, "cifar100": _next_of_superclass(_CIFAR100_SUPERCLASSES)}


def asymmetric_noise(targets: Tensor, similar: Sequence[int], fraction: float, seed: int) -> Tensor:
    """Replace targets by a similar class: in each class, exactly round(fraction * n) of its n targets.

    The maps of SIMILAR_CLASSES are those of Patrini et al. (2017), "Making Deep Neural Networks Robust to
    Label Noise". Departs from them: the number of replaced targets is not random. As there, `fraction` is the
    share within each class whose similar class is another class. In CIFAR-10 these are 5 of 10 classes, so
    fraction = 0.4 makes 20 % of all labels wrong. In CIFAR-100 these are all classes.

    Args:
        targets: True classes, int64 [N]; left unchanged.
        similar: The similar class of each class.
        fraction: Fraction of replaced labels of a class, 0 <= fraction < 1.
        seed: Seed of the choice of labels.

    Returns:
        int64 [N].

    Raises:
        ValueError: If the fraction is out of range.
    """
    _check_fraction(fraction)
    order = torch.randperm(len(targets), generator=generator_for("label noise", seed))
    noisy = targets.clone()
    for true, new in enumerate(similar):
        members = order[targets[order] == true]
        noisy[members[: round(fraction * len(members))]] = new
    return noisy


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
    _check_fraction(fraction)
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


def _check_fraction(fraction: float) -> None:
    if not 0 <= fraction < 1:
        raise ValueError(f"label noise must be a fraction with 0 <= fraction < 1, got {fraction}")
