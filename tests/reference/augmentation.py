"""Flip, crop, cutout and normalisation, one image and one plain step after the other, in float64."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def augment_batch(
    images: np.ndarray, draws: np.ndarray, *, cutout_scope: str = "image", **options: Any
) -> np.ndarray:
    """Return a batch of augmented images.

    Args:
        images: uint8 [B, H, W, C].
        draws: Numbers in [0, 1), [5, B], a column for each image.
        cutout_scope: image, or batch: every square lies where that of the first image does.
        **options: Those of augment().

    Returns:
        float64 [B, C, H, W].
    """
    augmented = []
    for number, image in enumerate(images):
        own = list(draws[:, number])
        if cutout_scope == "batch":
            own[3], own[4] = draws[3, 0], draws[4, 0]
        augmented.append(augment(image, own, **options))
    return np.stack(augmented)


def augment(
    image: np.ndarray,
    draws: Sequence[float],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    flip: bool = False,
    crop_padding: int = 0,
    padding: str = "reflect",
    cutout_size: int = 0,
) -> np.ndarray:
    """Return one augmented image: normalise, pad, crop, mirror, blank a square.

    Args:
        image: uint8 [H, W, C].
        draws: Five numbers in [0, 1): crop row, crop column, flip, cutout row, cutout column.
        mean: Of each channel, scaled to 0 .. 1.
        std: Likewise.
        flip: Whether to mirror left to right where the third draw is below 1/2.
        crop_padding: Pixels on each side.
        padding: reflect or zero.
        cutout_size: Side of the square in pixels; 0 means none.

    Returns:
        float64 [C, H, W].
    """
    height, width, _ = image.shape
    result = (image / 255 - np.array(mean)) / np.array(std)
    if crop_padding:
        sides = ((crop_padding, crop_padding), (crop_padding, crop_padding), (0, 0))
        padded = np.pad(result, sides, mode="reflect" if padding == "reflect" else "constant")
        top = int(draws[0] * (2 * crop_padding + 1))
        left = int(draws[1] * (2 * crop_padding + 1))
        result = padded[top : top + height, left : left + width]
    if flip and draws[2] < 0.5:
        result = result[:, ::-1]
    if cutout_size:
        result = result.copy()
        top = int(draws[3] * height) - cutout_size // 2
        left = int(draws[4] * width) - cutout_size // 2
        for row in range(top, top + cutout_size):
            for column in range(left, left + cutout_size):
                if 0 <= row < height and 0 <= column < width:
                    result[row, column] = 0
    return result.transpose(2, 0, 1)
