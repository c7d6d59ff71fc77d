"""AutoAugment's published policies (Cubuk et al. 2019), and what a policy is.

The pairs and the magnitudes are those of torchvision's AutoAugment. Level k of an operation means there:

- shear by k / 30, rotation by 10 k / 3 degrees, translation by k / 9 * 150 / 331 of the side;
- colour, contrast, brightness and sharpness: factor 1 + k / 10;
- posterize to 8 - 4 k / 9 bits, rounded; solarize from 255 (1 - k / 9) on.

A negative level means the other direction. The drawn direction is random where an operation has two.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping

import torch
from PIL.Image import Image
from torchvision.transforms.v2 import functional

GREY = 128  # fills what a shear, translation or rotation leaves empty, as in the released code
Pair = list[tuple[str, float, int]]  # operations as name, probability, level
Operation = Callable[[Image, int], Image]  # picture and level


@dataclasses.dataclass(frozen=True)
class Policy:
    """Pairs of operations, one of which is drawn for each picture."""

    pairs: list[Pair]
    by_value: Mapping[str, Operation]  # the new value of a pixel depends on its old value alone
    moves: Mapping[str, Operation]  # pixels move
    two_directions: frozenset[str]  # operations whose level gets a random sign
    factor: Callable[[int], float]  # how much of the picture colour, contrast and sharpness keep, at a level


def parsed(pairs: str) -> list[Pair]:
    """Return the pairs of a text with two operations per pair, each as "name probability level"."""
    found = []
    for pair in re.split(r"[|\n]", pairs.strip()):
        operations = [operation.split() for operation in pair.split(";")]
        found.append([(name, float(share), int(level)) for name, share, level in operations])
    return found


def _at(level: int, largest: float) -> float:
    """Return the magnitude at a level. torchvision rounds it to float32, and a picture must not differ."""
    return math.copysign(float(torch.linspace(0, largest, 10)[abs(level)]), level)


def _sheared(picture: Image, x: float = 0, y: float = 0) -> Image:
    degrees = [math.degrees(math.atan(size)) for size in (x, y)]
    sheared: Image = functional.affine(picture, 0, [0, 0], 1, degrees, fill=GREY, center=[0, 0])
    return sheared


def _translated(picture: Image, x: float = 0, y: float = 0) -> Image:
    translated: Image = functional.affine(picture, 0, [int(x), int(y)], 1, [0, 0], fill=GREY)
    return translated


_MOVES: dict[str, Operation] = {
    "ShearX": lambda picture, level: _sheared(picture, x=_at(level, 0.3)),
    "ShearY": lambda picture, level: _sheared(picture, y=_at(level, 0.3)),
    "TranslateX": lambda picture, level: _translated(picture, x=_at(level, 150 / 331 * picture.width)),
    "TranslateY": lambda picture, level: _translated(picture, y=_at(level, 150 / 331 * picture.height)),
    "Rotate": lambda picture, level: functional.rotate(picture, _at(level, 30), fill=GREY),
}
_BY_VALUE: dict[str, Operation] = {
    "Invert": lambda picture, _: functional.invert(picture),
    "Posterize": lambda picture, level: functional.posterize(picture, round(8 - level / (9 / 4))),
    "Solarize": lambda picture, level: functional.solarize(
        picture, 255.0 * float(torch.linspace(1, 0, 10)[level])
    ),
    "Brightness": lambda picture, level: functional.adjust_brightness(picture, 1 + _at(level, 0.9)),
}
_CIFAR10 = """
Invert 0.1 0; Contrast 0.2 6 | Rotate 0.7 2; TranslateX 0.3 9
Sharpness 0.8 1; Sharpness 0.9 3 | ShearY 0.5 8; TranslateY 0.7 9
AutoContrast 0.5 0; Equalize 0.9 0 | ShearY 0.2 7; Posterize 0.3 7
Color 0.4 3; Brightness 0.6 7 | Sharpness 0.3 9; Brightness 0.7 9
Equalize 0.6 0; Equalize 0.5 0 | Contrast 0.6 7; Sharpness 0.6 5
Color 0.7 7; TranslateX 0.5 8 | Equalize 0.3 0; AutoContrast 0.4 0
TranslateY 0.4 3; Sharpness 0.2 6 | Brightness 0.9 6; Color 0.2 8
Solarize 0.5 2; Invert 0 0 | Equalize 0.2 0; AutoContrast 0.6 0
Equalize 0.2 0; Equalize 0.6 0 | Color 0.9 9; Equalize 0.6 0
AutoContrast 0.8 0; Solarize 0.2 8 | Brightness 0.1 3; Color 0.7 0
Solarize 0.4 5; AutoContrast 0.9 0 | TranslateY 0.9 9; TranslateY 0.7 9
AutoContrast 0.9 0; Solarize 0.8 3 | Equalize 0.8 0; Invert 0.1 0
TranslateY 0.7 9; AutoContrast 0.9 0
"""
_SVHN = """
ShearX 0.9 4; Invert 0.2 0 | ShearY 0.9 8; Invert 0.7 0
Equalize 0.6 0; Solarize 0.6 6 | Invert 0.9 0; Equalize 0.6 0
Equalize 0.6 0; Rotate 0.9 3 | ShearX 0.9 4; AutoContrast 0.8 0
ShearY 0.9 8; Invert 0.4 0 | ShearY 0.9 5; Solarize 0.2 6
Invert 0.9 0; AutoContrast 0.8 0 | Equalize 0.6 0; Rotate 0.9 3
ShearX 0.9 4; Solarize 0.3 3 | ShearY 0.8 8; Invert 0.7 0
Equalize 0.9 0; TranslateY 0.6 6 | Invert 0.9 0; Equalize 0.6 0
Contrast 0.3 3; Rotate 0.8 4 | Invert 0.8 0; TranslateY 0 2
ShearY 0.7 6; Solarize 0.4 8 | Invert 0.6 0; Rotate 0.8 4
ShearY 0.3 7; TranslateX 0.9 3 | ShearX 0.1 6; Invert 0.6 0
Solarize 0.7 2; TranslateY 0.6 7 | ShearY 0.8 4; Invert 0.8 0
ShearX 0.7 9; TranslateY 0.8 3 | ShearY 0.8 5; AutoContrast 0.7 0
ShearX 0.7 2; Invert 0.1 0
"""
_IMAGENET = """
Posterize 0.4 8; Rotate 0.6 9 | Solarize 0.6 5; AutoContrast 0.6 0
Equalize 0.8 0; Equalize 0.6 0 | Posterize 0.6 7; Posterize 0.6 6
Equalize 0.4 0; Solarize 0.2 4 | Equalize 0.4 0; Rotate 0.8 8
Solarize 0.6 3; Equalize 0.6 0 | Posterize 0.8 5; Equalize 1 0
Rotate 0.2 3; Solarize 0.6 8 | Equalize 0.6 0; Posterize 0.4 6
Rotate 0.8 8; Color 0.4 0 | Rotate 0.4 9; Equalize 0.6 0
Equalize 0 0; Equalize 0.8 0 | Invert 0.6 0; Equalize 1 0
Color 0.6 4; Contrast 1 8 | Rotate 0.8 8; Color 1 2
Color 0.8 8; Solarize 0.8 7 | Sharpness 0.4 7; Invert 0.6 0
ShearX 0.6 5; Equalize 1 0 | Color 0.4 0; Equalize 0.6 0
Equalize 0.4 0; Solarize 0.2 4 | Solarize 0.6 5; AutoContrast 0.6 0
Invert 0.6 0; Equalize 1 0 | Color 0.6 4; Contrast 1 8
Equalize 0.8 0; Equalize 0.6 0
"""


def _published(pairs: str) -> Policy:
    directed = frozenset({*_MOVES, "Brightness", "Color", "Contrast", "Sharpness"})
    return Policy(parsed(pairs), _BY_VALUE, _MOVES, directed, lambda level: 1 + _at(level, 0.9))


PUBLISHED = {"cifar10": _published(_CIFAR10), "svhn": _published(_SVHN), "imagenet": _published(_IMAGENET)}
