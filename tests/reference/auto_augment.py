"""AutoAugment of one image after the other with given draws, by torchvision's functions for one image.

These functions take pictures of Pillow and tensors. Both kinds differ in the pixels of some operations:

    python -m tests.reference.auto_augment FOLDER_OF_CIFAR10

prints by how much.
"""

import pathlib
import sys
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from sam.data.datasets import cifar
from sam.data.policies import POLICIES
from sam.data.released_policy import OPERATIONS

GREY = 128


def auto_augmented(policy: str, image: Any, draws: list[float]) -> Any:
    """Return one changed image.

    Args:
        policy: The name of the policy.
        image: A picture, or for a published policy also uint8 [C, H, W].
        draws: Pair; whether the first and the second operation are applied; their directions; row and column
            of a cutout.
    """
    pairs = POLICIES[policy].pairs
    for place, (name, probability, level) in enumerate(pairs[int(draws[0] * len(pairs))]):
        if draws[1 + place] < np.float32(probability):
            sign = 1 if draws[3 + place] < 0.5 else -1
            if policy != "cifar10_released_code":
                image = published_operation(policy, image, name, level, sign)
            elif name == "Cutout":
                image = cut_out(image, 10 * level, draws[5:])
            else:
                moves = name in ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
                image = OPERATIONS[name](image, sign * level if moves else level)
    return image


def published_operation(policy: str, image: Any, name: str, level: int, sign: int) -> Any:
    """Apply an operation of torchvision's AutoAugment to a picture or a tensor."""
    transform = v2.AutoAugment(v2.AutoAugmentPolicy(policy), fill=GREY)
    height, width = v2.functional.get_size(image)
    magnitudes, has_sign = transform._AUGMENTATION_SPACE[name]
    every = magnitudes(10, height, width)
    magnitude = 0.0 if every is None else float(every[level]) * (sign if has_sign else 1)
    return transform._apply_image_or_video_transform(
        image, name, magnitude, transform.interpolation, transform._fill
    )


def cut_out(picture: Image.Image, half: int, draws: list[float]) -> Image.Image:
    """Return a picture with a grey square of 2 * half pixels around a drawn pixel."""
    pixels = np.array(picture)
    row, column = int(draws[0] * picture.height), int(draws[1] * picture.width)
    pixels[max(0, row - half) : row + half, max(0, column - half) : column + half] = GREY
    return Image.fromarray(pixels)


def difference(name: str, level: int, pixels: torch.Tensor) -> tuple[float, int]:
    """Compare an operation on tensors with that on pictures, in both directions.

    Args:
        name: The operation.
        level: Its level, 0 .. 9.
        pixels: uint8 [N, H, W, C].

    Returns:
        The share of the values that differ, in percent, and the largest difference.
    """
    found = []
    for image in pixels.permute(0, 3, 1, 2):
        for sign in (1, -1):
            picture = published_operation("cifar10", v2.functional.to_pil_image(image), name, level, sign)
            tensor = published_operation("cifar10", image, name, level, sign)
            found.append((v2.functional.pil_to_tensor(picture).int() - tensor.int()).abs())
    every = torch.stack(found)
    return 100 * every.ne(0).double().mean().item(), int(every.max())


if __name__ == "__main__":
    images = cifar("cifar10", pathlib.Path(sys.argv[1]), download=False, verify=True).train.pixels[:300]
    for operation in v2.AutoAugment._AUGMENTATION_SPACE:
        shares, largest = zip(*(difference(operation, level, images) for level in range(10)), strict=True)
        print(f"| {operation} | {sum(shares) / 10:.2f} | {max(shares):.2f} | {max(largest)} |")
