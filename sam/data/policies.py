"""AutoAugment, inception crop and centre crop of one picture, for the workers that prepare images one by one.

AutoAugment (Cubuk et al. 2019) is torchvision's: one of 25 pairs of operations is drawn for each picture.
The policy cifar10_released_code is in released_policy.py. Departures of the others from the released code of
the SAM paper:

- CIFAR policy: 25 pairs, as published; that code has 95. The SVHN policies are equal. The ImageNet policies
  differ.
- Translation at level k: k / 9 * 150 / 331 of the side, so at most 14 of 32 pixels. That code uses 25 * k
  pixels, the magnitude for ImageNet, on 32-pixel images too: about 11 % of its CIFAR images come out blank.
- Colour, contrast, brightness and sharpness at level k: factor 1 + k / 10 or 1 - k / 10, with equal
  probability. That code uses 0.1 + 0.18 * k.
- Posterize: keeps at least 4 bits. That code keeps 0 to 4.
- Shrinking a crop: averages over the source pixels. That code does not.

All draws come from torch's global generator: its seed determines the result.
"""

from collections.abc import Callable

from PIL.Image import Image
from torch import Tensor
from torchvision.transforms import v2

from sam.data.published_policies import GREY, PUBLISHED
from sam.data.released_policy import RELEASED, ReleasedAutoAugment

PictureTransform = Callable[[Image], Image]

POLICIES = {**PUBLISHED, "cifar10_released_code": RELEASED}


def auto_augment(policy: str) -> PictureTransform:
    """Return AutoAugment with one of its published policies, for pictures of mode RGB or L.

    Args:
        policy: cifar10 (also for CIFAR-100), svhn or imagenet; or cifar10_released_code.

    Returns:
        A transform that keeps size and mode.
    """
    if policy == "cifar10_released_code":
        return ReleasedAutoAugment()
    transform: PictureTransform = v2.AutoAugment(v2.AutoAugmentPolicy(policy), fill=GREY)
    return transform


def inception_crop(image_size: int, interpolation: str) -> PictureTransform:
    """Return a random crop of 8 % to 100 % of the area and aspect ratio 3/4 to 4/3, resized to a square.

    Args:
        image_size: Side of the result, in pixels.
        interpolation: bilinear or bicubic.

    Returns:
        A transform of a picture of any size.
    """
    return _InceptionCrop(image_size, interpolation)


class _InceptionCrop:
    """torchvision's RandomResizedCrop, but resized by torch: 1.5 times as fast, up to one grey level off."""

    def __init__(self, image_size: int, interpolation: str) -> None:
        mode = v2.InterpolationMode(interpolation)
        self._box = v2.RandomResizedCrop(image_size, (0.08, 1), (3 / 4, 4 / 3), mode)
        self._resize = v2.Resize((image_size, image_size), mode, antialias=True)

    def __call__(self, picture: Image) -> Image:
        part = v2.functional.crop(picture, **self._box.make_params([picture]))
        resized: Image = v2.functional.to_pil_image(self._resize(v2.functional.pil_to_tensor(part)))
        return resized


def centre_crop(resize_size: int, image_size: int, interpolation: str) -> PictureTransform:
    """Return a resize of the shorter side, followed by a crop of the square in the centre.

    Args:
        resize_size: Length of the shorter side after the resize, in pixels; at least image_size.
        image_size: Side of the result, in pixels.
        interpolation: bilinear or bicubic.

    Returns:
        A transform of a picture of any size.

    Raises:
        ValueError: If the square is larger than the resized picture.
    """
    if resize_size < image_size:
        raise ValueError(
            f"resize_size={resize_size} must be at least image_size={image_size}; "
            "raise resize_size or lower image_size"
        )
    transform: PictureTransform = v2.Compose(
        [
            v2.Resize(resize_size, v2.InterpolationMode(interpolation)),
            v2.CenterCrop(image_size),
        ]
    )
    return transform


def to_pixels(picture: Image) -> Tensor:
    """Return a picture as uint8 [H, W, C]."""
    pixels: Tensor = v2.functional.pil_to_tensor(picture)
    return pixels.permute(1, 2, 0)
