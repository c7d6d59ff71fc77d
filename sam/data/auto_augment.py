"""AutoAugment of many images at once, on the training device. The host never waits for the device.

An image gets the same pixels as from the same operations in policies.py, to the bit. So it follows Pillow.
(torchvision's functions for tensors differ from Pillow.) Only the draws differ from policies.py: they come
from one generator per batch.

The host draws, sorts the images by operation, and sends the order to the device once. Each of the two
operations of a pair is then one of these:

- a new value for each pixel, from one table of 256 values per image and channel;
- a move of pixels: one gather, by a table of positions;
- a blend with another image: its grey, its mean grey, or its smoothed copy;
- cutout, which only the released code has.

The tables that do not depend on the image come from Pillow: an operation is applied to a picture that holds
all values, or to a picture in which each pixel holds its position.

Axes: n images, C channels, P pixels of an image: H rows times W columns.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from sam.data.published_policies import GREY, Operation, Policy
from sam.data.transfer import send

# Pair; whether the first and the second operation are applied; their directions; row and column of a cutout.
NUM_DRAWS = 7
# The images are sorted by the kind of their operation. Kinds that are computed together form a group.
GROUPS = (("none",), ("ByValue", "Equalize", "AutoContrast"), ("Move",), ("Color", "Contrast", "Sharpness"),
          ("Cutout",))  # fmt: skip
KINDS = [kind for group in GROUPS for kind in group]
Variant = tuple[str, int]  # an operation at a level; a negative level is the other direction


class AutoAugment:
    """A policy for images of one size.

    Args:
        policy: The pairs, and what their operations do.
        shape: Height, width and channels (1 or 3) of an image.
        device: The training device.
    """

    def __init__(self, policy: Policy, shape: tuple[int, int, int], device: torch.device) -> None:
        self._shape, self._device = shape, device
        variants = {kind: _variants(policy, kind) for kind in KINDS}
        numbered = [variant for kind in KINDS for variant in variants[kind]]
        # These four stay on the host. Of the operations of each pair: [2, pairs], and [2, pairs, directions].
        self._probabilities = torch.tensor([[share for _, share, _ in pair] for pair in policy.pairs]).T
        self._numbers = torch.tensor(
            [[[numbered.index(v) for v in _directions(policy, o)] for o in pair] for pair in policy.pairs]
        ).transpose(0, 1)
        # Of each variant: the number of its kind, and its row in the tables of its group.
        self._kinds = torch.tensor([KINDS.index(kind) for kind in KINDS for _ in variants[kind]])
        in_group = [[variant for kind in group for variant in variants[kind]] for group in GROUPS]
        self._rows = torch.tensor([row for group in in_group for row in range(len(group))])
        _, _, moves, blends, cutouts = in_group
        tables = [_table(policy.by_value[name], level, shape) for name, level in variants["ByValue"]]
        maps = [_positions(policy.moves[name], level, shape) for name, level in moves]
        luma = [1.0] if shape[2] == 1 else [part / 2**16 for part in (19595, 38470, 7471)]  # Pillow's grey
        self._tables = torch.from_numpy(np.stack(tables)).to(device)
        self._maps = torch.from_numpy(np.stack(maps)).to(device)
        self._factors = torch.tensor([policy.factor(level) for _, level in blends], device=device)
        self._halves = torch.tensor([10 * level for _, level in cutouts], device=device)
        self._luma = torch.tensor(luma, device=device)[:, None]

    def __call__(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """Return the changed images.

        Args:
            pixels: uint8 [n, H, W, C], on the device; left unchanged.
            draws: Random numbers in [0, 1), float [7, n], on the CPU.

        Returns:
            uint8 [n, H, W, C], on the device.
        """
        height, width, channels = self._shape
        plan, counts = self._plan(draws)
        first, first_rows, second, second_rows, back = send(plan, self._device)
        images = pixels.permute(0, 3, 1, 2).flatten(2)
        images = self._applied(images.index_select(0, first), first_rows, counts[0])
        images = self._applied(images.index_select(0, second), second_rows, counts[1])
        images = images.index_select(0, back)
        return images.view(-1, channels, height, width).permute(0, 2, 3, 1)

    def _plan(self, draws: Tensor) -> tuple[Tensor, list[list[int]]]:
        """Sort the images by the kind of their first operation, then of their second, then back.

        Returns:
            Order and rows for each operation and the order back, int64 [5, n]; the images of each kind.
        """
        height, width, _ = self._shape
        pair = (draws[0] * self._probabilities.shape[1]).long()
        numbers = self._numbers[torch.arange(2)[:, None], pair, (draws[3:5] >= 0.5).long()]
        numbers *= draws[1:3] < self._probabilities[:, pair]
        kinds, rows = self._kinds[numbers], self._rows[numbers]
        centre = (draws[5] * height).long() * width + (draws[6] * width).long()
        rows = torch.where(kinds == KINDS.index("Cutout"), rows * (height * width) + centre, rows)
        arranged = torch.arange(len(pair))
        plan, counts = [], []
        for place in range(2):
            order = kinds[place, arranged].argsort()
            arranged = arranged[order]
            plan += [order, rows[place, arranged]]
            counts.append(torch.bincount(kinds[place], minlength=len(KINDS)).tolist())
        return torch.stack([*plan, arranged.argsort()]), counts

    def _applied(self, images: Tensor, rows: Tensor, counts: list[int]) -> Tensor:
        """Apply one operation to each image, uint8 [n, C, P]; they are sorted by its kind."""
        kinds = iter(counts)
        in_group = [[next(kinds) for _ in group] for group in GROUPS]
        sizes = [sum(sizes) for sizes in in_group]
        functions: Sequence[Callable[[Tensor, Tensor, list[int]], Tensor]] = (
            lambda images, *_: images,
            self._look_up,
            self._move,
            self._blend,
            self._cut_out,
        )
        parts = zip(functions, images.split(sizes), rows.split(sizes), in_group, strict=True)
        return torch.cat([change(part, own, n) if len(part) else part for change, part, own, n in parts])

    def _look_up(self, images: Tensor, rows: Tensor, counts: list[int]) -> Tensor:
        values = images.long()
        fixed, equalized, stretched = values.split(counts)
        tables = self._tables.index_select(0, rows[: len(fixed)])[:, None].expand(-1, images.shape[1], -1)
        return torch.cat([tables, _equalizing(equalized), _stretching(stretched)]).gather(2, values)

    def _move(self, images: Tensor, rows: Tensor, _: list[int]) -> Tensor:
        sources = self._maps.index_select(0, rows)[:, None].expand_as(images)
        return pad(images, (0, 1), value=GREY).gather(2, sources)

    def _blend(self, images: Tensor, rows: Tensor, counts: list[int]) -> Tensor:
        """Return factor * image + (1 - factor) * other image, rounded down, as Pillow computes it."""
        values = images.float()
        colour, contrast, sharpness = values.split(counts)
        other = [
            self._grey(colour).expand_as(colour),
            _mean(self._grey(contrast)).expand_as(contrast),
            _smooth(sharpness.unflatten(2, self._shape[:2])).flatten(2),
        ]
        others, factors = torch.cat(other), self._factors.index_select(0, rows)[:, None, None]
        return (values - others).mul_(factors).add_(others).clamp_(0, 255).byte()

    def _grey(self, values: Tensor) -> Tensor:
        # Exact in float32: the weights are multiples of 2**-16, and the sum is below 2**8.
        return (values * self._luma).sum(1, keepdim=True).add_(0.5).floor_()

    def _cut_out(self, images: Tensor, rows: Tensor, _: list[int]) -> Tensor:
        height, width = self._shape[:2]
        half = self._halves.index_select(0, rows // (height * width))[:, None]
        row = torch.arange(height, device=self._device) - (rows // width % height)[:, None]
        column = torch.arange(width, device=self._device) - (rows % width)[:, None]
        rows_inside, columns_inside = ((at >= -half) & (at < half) for at in (row, column))
        box = rows_inside[:, :, None] & columns_inside[:, None]
        return images.masked_fill(box.flatten(1)[:, None], GREY)


def _kind(policy: Policy, name: str) -> str:
    return "ByValue" if name in policy.by_value else "Move" if name in policy.moves else name


def _directions(policy: Policy, operation: tuple[str, float, int]) -> list[Variant]:
    name, _, level = operation
    return [(name, level), (name, -level if name in policy.two_directions else level)]


def _variants(policy: Policy, kind: str) -> list[Variant]:
    """Return all operations of a kind that the policy can draw, at their levels."""
    if kind == "none":
        return [("none", 0)]
    every = {variant for pair in policy.pairs for drawn in pair for variant in _directions(policy, drawn)}
    return sorted(variant for variant in every if _kind(policy, variant[0]) == kind)


def _table(operation: Operation, level: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the new value of each of the 256 values, uint8 [256]."""
    height, width, _ = shape
    num_pictures = math.ceil(256 / (height * width))
    pictures = np.resize(np.arange(256, dtype=np.uint8), (num_pictures, height, width))
    changed = [np.asarray(operation(Image.fromarray(picture), level)) for picture in pictures]
    return np.stack(changed).ravel()[:256]


def _positions(operation: Operation, level: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the position that each pixel is taken from, int64 [P]; P stands for a grey pixel."""
    height, width, _ = shape
    num_pixels, beyond_grey = height * width, 256
    positions = np.arange(num_pixels, dtype=np.int32).reshape(height, width) + beyond_grey
    moved = np.asarray(operation(Image.fromarray(positions), level)).ravel().astype(np.int64)
    return np.where(moved == GREY, num_pixels, moved - beyond_grey)


def _equalizing(values: Tensor) -> Tensor:
    """Return the tables that equalize the histograms of channels, uint8 [n, C, 256] for int64 [n, C, P]."""
    histogram = values.new_zeros(*values.shape[:2], 256)
    histogram.scatter_add_(2, values, values.new_ones(1).expand_as(values))
    below = histogram.cumsum(2) - histogram
    step = (values.shape[2] - histogram.gather(2, values.amax(2, keepdim=True))) // 255
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    return torch.where(step == 0, torch.arange(256, device=values.device), table).byte()


def _stretching(values: Tensor) -> Tensor:
    """Return the tables that stretch channels to 0 .. 255, uint8 [n, C, 256] for int64 [n, C, P]."""
    low, high = values.aminmax(dim=2, keepdim=True)
    span = (high - low).double()
    scale = torch.full_like(span, 255) / span  # 255 / span would be a product with a rounded reciprocal
    every = torch.arange(256, device=values.device, dtype=torch.float64)
    table = (every * scale - low * scale).clamp_(0, 255)
    return torch.where(span == 0, every, table).byte()


def _mean(grey: Tensor) -> Tensor:
    """Return the rounded mean of each image, float32 [n, 1, 1]."""
    total = grey.sum(2, keepdim=True, dtype=torch.float64)
    count = torch.full_like(total, grey.shape[2])  # a GPU divides by a number with its rounded reciprocal
    return (total / count).add_(0.5).floor_().float()


def _smooth(values: Tensor) -> Tensor:
    """Return (sum of 3 x 3 pixels + 4 * middle pixel) / 13, rounded, [n, C, H, W]; the border stays."""
    smoothed = values.clone()
    if min(values.shape[2:]) > 2:
        inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
        total = avg_pool2d(values, 3, stride=1, divisor_override=1).add_(values[inside], alpha=4)
        # The sum is a whole number, so the quotient is never within 1 / 26 of a half: no rounding matters.
        smoothed[inside] = total.div_(13).add_(0.5).floor_()
    return smoothed
