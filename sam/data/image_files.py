"""Labelled image files: a split of a dataset that stays on disk; its images are decoded when needed."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image
from torch import Tensor

from sam.data.policies import centre_crop, to_pixels
from sam.system.foreign_files import open_regular

# GIF, since some .jpg files of Oxford-IIIT Pet are GIF files. Pillow can read more formats. But it passes EPS
# files, whatever their extension, to Ghostscript, which executes them.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")


class ImageError(ValueError):
    """A file is not a usable image; the message names the file and says what to do."""


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """One split of a dataset, on disk; its prepared images are RGB and square."""

    paths: tuple[str, ...]
    targets: Tensor  # int64 [N], each in 0 .. num_classes - 1: the labels to train on
    clean_targets: Tensor | None = None  # int64 [N], the true labels; None if targets are the true labels
    _: dataclasses.KW_ONLY
    image_size: int  # height and width of a prepared image, in pixels
    resize_size: int  # length of the shorter side before the centre crop, in pixels; at least image_size
    interpolation: str  # bilinear or bicubic, both with antialiasing

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a prepared image."""
        return self.image_size, self.image_size, 3

    def take(self, indices: Tensor) -> "ImageFiles":
        """Return the files at the given positions, int64 [n]."""
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[index] for index in indices.tolist()),
            targets=self.targets[indices],
            clean_targets=None if self.clean_targets is None else self.clean_targets[indices],
        )

    def to(self, device: torch.device) -> "ImageFiles":
        """Return the same object: files and targets do not move to the device."""
        return self

    def picture(self, index: int) -> Image.Image:
        """Return one image at its full size, as RGB.

        Raises:
            ImageError: If the file is missing or broken, or holds more than 8 bits per channel.
        """
        path = self.paths[index]
        try:
            with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
                if image.mode.startswith(("I", "F")):
                    raise ValueError("it has more than 8 bits per channel, which would be clipped to white")
                return image.convert("RGB")
        except Exception as error:  # a broken file can make PIL raise almost anything
            raise ImageError(f"{path} is not a readable image ({error}); repair or delete it") from error

    def decoded(self) -> Tensor:
        """Return all images, resized and centre-cropped: uint8 [N, image_size, image_size, 3].

        Raises:
            ImageError: If a file cannot be read.
            ValueError: If resize_size is below image_size.
        """
        crop = centre_crop(self.resize_size, self.image_size, self.interpolation)
        pixels = torch.empty(len(self), *self.shape, dtype=torch.uint8)

        def decode(index: int) -> None:
            pixels[index] = to_pixels(crop(self.picture(index)))

        # Threads help here: PIL releases Python's global lock while it decodes.
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(decode, range(len(self))):
                pass
        return pixels
