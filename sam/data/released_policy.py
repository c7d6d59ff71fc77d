"""AutoAugment as in the released code of the SAM paper: its 95 pairs for CIFAR, and its magnitudes.

Facts of that policy, not its code. Level k of an operation means there:

- shear by 0.03 k, rotation by 3 k degrees, translation by 25 k pixels, each in a random direction;
- colour, contrast, brightness and sharpness: factor 0.1 + 0.18 k;
- posterize to 0.4 k bits and solarize from 25.6 k on, both rounded down;
- cutout of a square of 20 k pixels around a random pixel.

The magnitudes are those for ImageNet. A translation of 25 pixels or more leaves few or no pixels of a CIFAR
image: about 11 % of the images come out blank. Contrast does not change towards the mean grey, but towards
the number of pixels divided by 256: in that code, the mean of a histogram has this value.

Departs from it in rounding, by one grey level, and in the pixel that a shear or rotation takes at an edge.
"""

from collections.abc import Callable

import torch
from PIL import Image, ImageEnhance, ImageOps

from sam.data.published_policies import GREY, Operation, Policy, parsed

# Pairs of operations, as "name probability level".
PAIRS = """
Invert 0.1 7; Contrast 0.2 6 | Rotate 0.7 2; TranslateX 0.3 9
Sharpness 0.8 1; Sharpness 0.9 3 | ShearY 0.5 8; TranslateY 0.7 9
AutoContrast 0.5 8; Equalize 0.9 2 | Solarize 0.4 5; AutoContrast 0.9 3
TranslateY 0.9 9; TranslateY 0.7 9 | AutoContrast 0.9 2; Solarize 0.8 3
Equalize 0.8 8; Invert 0.1 3 | TranslateY 0.7 9; AutoContrast 0.9 1
Solarize 0.4 5; AutoContrast 0 2 | TranslateY 0.7 9; TranslateY 0.7 9
AutoContrast 0.9 0; Solarize 0.4 3 | Equalize 0.7 5; Invert 0.1 3
TranslateY 0.7 9; TranslateY 0.7 9 | Solarize 0.4 5; AutoContrast 0.9 1
TranslateY 0.8 9; TranslateY 0.9 9 | AutoContrast 0.8 0; TranslateY 0.7 9
TranslateY 0.2 7; Color 0.9 6 | Equalize 0.7 6; Color 0.4 9
ShearY 0.2 7; Posterize 0.3 7 | Color 0.4 3; Brightness 0.6 7
Sharpness 0.3 9; Brightness 0.7 9 | Equalize 0.6 5; Equalize 0.5 1
Contrast 0.6 7; Sharpness 0.6 5 | Brightness 0.3 7; AutoContrast 0.5 8
AutoContrast 0.9 4; AutoContrast 0.5 6 | Solarize 0.3 5; Equalize 0.6 5
TranslateY 0.2 4; Sharpness 0.3 3 | Brightness 0 8; Color 0.8 8
Solarize 0.2 6; Color 0.8 6 | Solarize 0.2 6; AutoContrast 0.8 1
Solarize 0.4 1; Equalize 0.6 5 | Brightness 0 0; Solarize 0.5 2
AutoContrast 0.9 5; Brightness 0.5 3 | Contrast 0.7 5; Brightness 0 2
Solarize 0.2 8; Solarize 0.1 5 | Contrast 0.5 1; TranslateY 0.2 9
AutoContrast 0.6 5; TranslateY 0 9 | AutoContrast 0.9 4; Equalize 0.8 4
Brightness 0 7; Equalize 0.4 7 | Solarize 0.2 5; Equalize 0.7 5
Equalize 0.6 8; Color 0.6 2 | Color 0.3 7; Color 0.2 4
AutoContrast 0.5 2; Solarize 0.7 2 | AutoContrast 0.2 0; Equalize 0.1 0
ShearY 0.6 5; Equalize 0.6 5 | Brightness 0.9 3; AutoContrast 0.4 1
Equalize 0.8 8; Equalize 0.7 7 | Equalize 0.7 7; Solarize 0.5 0
Equalize 0.8 4; TranslateY 0.8 9 | TranslateY 0.8 9; TranslateY 0.6 9
TranslateY 0.9 0; TranslateY 0.5 9 | AutoContrast 0.5 3; Solarize 0.3 4
Solarize 0.5 3; Equalize 0.4 4 | Color 0.7 7; TranslateX 0.5 8
Equalize 0.3 7; AutoContrast 0.4 8 | TranslateY 0.4 3; Sharpness 0.2 6
Brightness 0.9 6; Color 0.2 8 | Solarize 0.5 2; Invert 0 3
AutoContrast 0.1 5; Brightness 0 0 | Cutout 0.2 4; Equalize 0.1 1
Equalize 0.7 7; AutoContrast 0.6 4 | Color 0.1 8; ShearY 0.2 3
ShearY 0.4 2; Rotate 0.7 0 | ShearY 0.1 3; AutoContrast 0.9 5
TranslateY 0.3 6; Cutout 0.3 3 | Equalize 0.5 0; Solarize 0.6 6
AutoContrast 0.3 5; Rotate 0.2 7 | Equalize 0.8 2; Invert 0.4 0
Equalize 0.9 5; Color 0.7 0 | Equalize 0.1 1; ShearY 0.1 3
AutoContrast 0.7 3; Equalize 0.7 0 | Brightness 0.5 1; Contrast 0.1 7
Contrast 0.1 4; Solarize 0.6 5 | Solarize 0.2 3; ShearX 0 0
TranslateX 0.3 0; TranslateX 0.6 0 | Equalize 0.5 9; TranslateY 0.6 7
ShearX 0.1 0; Sharpness 0.5 1 | Equalize 0.8 6; Invert 0.3 6
AutoContrast 0.3 9; Cutout 0.5 3 | ShearX 0.4 4; AutoContrast 0.9 2
ShearX 0 3; Posterize 0 3 | Solarize 0.4 3; Color 0.2 4
Equalize 0.1 4; Equalize 0.7 6 | Equalize 0.3 8; AutoContrast 0.4 3
Solarize 0.6 4; AutoContrast 0.7 6 | AutoContrast 0.2 9; Brightness 0.4 8
Equalize 0.1 0; Equalize 0 6 | Equalize 0.8 4; Equalize 0 4
Equalize 0.5 5; AutoContrast 0.1 2 | Solarize 0.5 5; AutoContrast 0.9 5
AutoContrast 0.6 1; AutoContrast 0.7 8 | Equalize 0.2 0; AutoContrast 0.1 2
Equalize 0.6 9; Equalize 0.4 4
"""


class ReleasedAutoAugment:
    """Draws one of the 95 pairs, and applies each of its operations with its probability.

    All draws come from torch's global generator. Pictures have mode RGB or L; size and mode stay.
    """

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Return the changed picture."""
        pair = RELEASED.pairs[int(torch.randint(len(RELEASED.pairs), ()))]
        for name, probability, level in pair:
            if float(torch.rand(())) < probability:
                forward = name not in RELEASED.two_directions or float(torch.rand(())) < 0.5
                picture = OPERATIONS[name](picture, level if forward else -level)
        return picture


def _grey(picture: Image.Image) -> int | tuple[int, int, int]:
    return (GREY, GREY, GREY) if picture.mode == "RGB" else GREY


def _affine(picture: Image.Image, *numbers: float) -> Image.Image:
    """Take pixel (x, y) from (a x + b y + c, d x + e y + f); what is outside becomes grey."""
    return picture.transform(
        picture.size, Image.Transform.AFFINE, numbers, Image.Resampling.NEAREST, fillcolor=_grey(picture)
    )


def _factor(level: int) -> float:
    return 0.1 + 0.18 * level


def _enhance(enhancer: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda picture, level: enhancer(picture).enhance(_factor(level))


def _contrast(picture: Image.Image, level: int) -> Image.Image:
    grey = min(255, picture.width * picture.height // 256)
    constant = Image.new("L", picture.size, grey).convert(picture.mode)
    return Image.blend(constant, picture, _factor(level))


def _cutout(picture: Image.Image, level: int) -> Image.Image:
    x, y = (int(torch.randint(size, ())) for size in picture.size)
    half = 10 * level
    changed = picture.copy()
    changed.paste(_grey(picture), (max(0, x - half), max(0, y - half), x + half, y + half))
    return changed


_MOVES: dict[str, Operation] = {
    "Rotate": lambda picture, level: picture.rotate(3 * level, fillcolor=_grey(picture)),
    "ShearX": lambda picture, level: _affine(picture, 1, 0.03 * level, 0, 0, 1, 0),
    "ShearY": lambda picture, level: _affine(picture, 1, 0, 0, 0.03 * level, 1, 0),
    "TranslateX": lambda picture, level: _affine(picture, 1, 0, 25 * level, 0, 1, 0),
    "TranslateY": lambda picture, level: _affine(picture, 1, 0, 0, 0, 1, 25 * level),
}
_BY_VALUE: dict[str, Operation] = {
    "Invert": lambda picture, level: ImageOps.invert(picture),
    "Posterize": lambda picture, level: ImageOps.posterize(picture, 4 * level // 10),
    "Solarize": lambda picture, level: ImageOps.solarize(picture, 256 * level // 10),
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Contrast": _contrast,
}
OPERATIONS: dict[str, Operation] = {
    **_MOVES,
    **_BY_VALUE,
    "AutoContrast": lambda picture, level: ImageOps.autocontrast(picture),
    "Equalize": lambda picture, level: ImageOps.equalize(picture),
    "Color": _enhance(ImageEnhance.Color),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
    "Cutout": _cutout,
}
RELEASED = Policy(parsed(PAIRS), _BY_VALUE, _MOVES, frozenset(_MOVES), _factor)
