"""Flip, crop and cutout of a whole batch as a few tensor operations.

Flip and crop only move pixels. For each image, one table holds the source rows and one the source columns.
The batch is then two gathers from the uint8 images in memory, before anything is converted to float.

Axes: N images in memory, B images in the batch; H, W and C as in images.py.
Cutout follows DeVries and Taylor (2017): one square per image around a random centre, clipped at the border.
The released code of the SAM paper draws one square per batch for all devices: cutout_scope="batch".
"""

import dataclasses

import torch
from torch import Tensor

from sam.data.images import Images

NUM_DRAWS = 5  # row offset, column offset, flip, cutout row, cutout column


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random flip, crop and cutout of each training image; all are off by default."""

    flip: bool = False
    crop_padding: int = 0  # pixels
    padding: str = "reflect"  # or "zero": the mean colour, since it is applied after normalisation
    cutout_size: int = 0  # pixels
    cutout_scope: str = "image"  # or "batch": the caller then passes the draws through shared_cutout

    def check(self, height: int, width: int) -> None:
        """Check that images are large enough.

        Raises:
            ValueError: If the padding is not smaller than the image.
        """
        if self.crop_padding >= min(height, width):
            raise ValueError(
                f"augmentation.crop_padding={self.crop_padding} must be below the image size, "
                f"here {height} x {width} pixels"
            )

    def __call__(self, images: Images, indices: Tensor, draws: Tensor, normalize: "Normalization") -> Tensor:
        """Return one augmented, normalised batch.

        Args:
            images: A split in memory.
            indices: Positions of the images in the split, int64 [B].
            draws: Random numbers in [0, 1) for these images, float [5, B].
            normalize: Applied after flip and crop, before zero padding and cutout.

        Returns:
            float32 [B, C, H, W] in channels_last memory format.
        """
        _, height, width, channels = images.pixels.shape
        rows, rows_inside = self._crop(draws[0], height)
        columns, columns_inside = self._crop(draws[1], width)
        if self.flip:
            mirrored = draws[2, :, None] < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
            columns_inside = torch.where(mirrored, columns_inside.flip(1), columns_inside)
        batch = normalize(_gather(images.pixels, indices, rows, columns))
        if self.crop_padding and self.padding == "zero":
            # Multiply by the mask of the inside. (The mask of the outside is not an outer product.)
            batch *= _outer(rows_inside, columns_inside, channels)
        if self.cutout_size:
            box = _outer(self._box(draws[3], height), self._box(draws[4], width), channels)
            batch.addcmul_(batch, box, value=-1)
        return batch.view(-1, height, width, channels).permute(0, 3, 1, 2)

    def _crop(self, draws: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Return the source of each row (or column), reflected at the border, and which ones lie inside."""
        offset = (draws * (2 * self.crop_padding + 1)).long() - self.crop_padding
        source = torch.arange(size, device=draws.device) + offset[:, None]
        reflected = (size - 1) - ((size - 1) - source.abs()).abs()
        return reflected, source == reflected

    def _box(self, draws: Tensor, size: int) -> Tensor:
        """Return which rows (or columns) the cutout square covers, bool [B, size]."""
        first = (draws * size).long() - self.cutout_size // 2
        distance = torch.arange(size, device=draws.device) - first[:, None]
        return (distance >= 0) & (distance < self.cutout_size)


def shared_cutout(draws: Tensor) -> Tensor:
    """Return draws, float [5, B], in which every image has the cutout square of the first image.

    Call it before the processes take their shares, so that all of them blank the same square.
    """
    return torch.cat([draws[:3], draws[3:, :1].expand(-1, draws.shape[1])])


class Normalization:
    """(pixel / 255 - mean) / std, one mean and std per channel.

    Args:
        mean: Mean of the pixels scaled to 0 .. 1, one number per channel.
        std: Standard deviation of the same pixels, one number > 0 per channel.
        width: Width of an image, in pixels. The constants are repeated along a row, for a long inner loop.
        device: The device of the batches.
    """

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
    ) -> None:
        self.mean, self.std = mean, std
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self._scale = scale.repeat(width).to(device, torch.float32)
        self._shift = shift.repeat(width).to(device, torch.float32)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return float32 [B, H, W * C] for uint8 [B, H, W * C]."""
        return torch.addcmul(self._shift, rows.float(), self._scale)


def _gather(pixels: Tensor, indices: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return pixels[indices[b], rows[b, h], columns[b, w]] as uint8 [B, H, W * C].

    It gathers whole rows, then bytes within rows: on a CPU, twice as fast as one gather of single pixels.
    """
    num_images, height, width, channels = pixels.shape
    row_numbers = (indices[:, None] * height + rows).flatten()
    picked = pixels.view(num_images * height, width * channels).index_select(0, row_numbers)
    channel = torch.arange(channels, device=pixels.device)
    bytes_in_row = (columns[:, None, :, None] * channels + channel).flatten(2)
    picked = picked.view(len(indices), height, width * channels)
    return picked.gather(2, bytes_in_row.expand_as(picked))


def _outer(rows: Tensor, columns: Tensor, channels: int) -> Tensor:
    """Return rows[b, h] * columns[b, w], repeated over channels, as float32 [B, H, W * C]."""
    wide = columns.float().repeat_interleave(channels, dim=1)
    return rows.float()[:, :, None] * wide[:, None, :]
