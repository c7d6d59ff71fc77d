"""Tests of sam/data/augmentation.py, against tests/reference/augmentation.py."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import Tensor

from sam.data.augmentation import NUM_DRAWS, Augmentation, Normalization, shared_cutout
from sam.data.batches import TrainBatches
from sam.data.images import Images
from tests.reference.augmentation import augment_batch

CPU = torch.device("cpu")
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def random_images(num_images: int, height: int, width: int, channels: int) -> Images:
    generator = torch.Generator().manual_seed(0)
    shape = (num_images, height, width, channels)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(num_images))


def position_images(height: int, width: int) -> Images:
    """Return one image whose first channel holds each pixel's row and whose second holds its column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return Images(torch.stack([rows, columns], 2)[None].to(torch.uint8), torch.zeros(1, dtype=torch.long))


def raw_pixels(width: int, channels: int) -> Normalization:
    """Return a normalisation that leaves the numbers 0 .. 255 as they are."""
    return Normalization((0.0,) * channels, (1 / 255,) * channels, width, CPU)


def random_draws(num_images: int, seed: int = 0) -> Tensor:
    return torch.rand(NUM_DRAWS, num_images, generator=torch.Generator().manual_seed(seed))


def train_batches(
    images: Images, augmentation: Augmentation, normalize: Normalization, **options: Any
) -> TrainBatches:
    return TrainBatches(
        images, augmentation, normalize, device=CPU, seed=0, num_classes=len(images), **options
    )


def reference(
    images: Images,
    indices: Tensor,
    draws: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    **options: Any,
) -> np.ndarray:
    pixels = images.pixels[indices].numpy()
    return augment_batch(pixels, draws.double().numpy(), mean=mean, std=std, **options)


@settings(max_examples=60, deadline=None)
@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    flip=st.booleans(),
    crop_padding=st.integers(0, 3),
    padding=st.sampled_from(["reflect", "zero"]),
    cutout_size=st.integers(0, 11),
    cutout_scope=st.sampled_from(["image", "batch"]),
    seed=st.integers(0, 1000),
)
def test_augmentation_equals_reference_bit_for_bit_on_raw_pixels(
    channels: int,
    height: int,
    width: int,
    flip: bool,
    crop_padding: int,
    padding: str,
    cutout_size: int,
    cutout_scope: str,
    seed: int,
) -> None:
    options = {
        "flip": flip,
        "crop_padding": crop_padding,
        "padding": padding,
        "cutout_size": cutout_size,
        "cutout_scope": cutout_scope,
    }
    images = random_images(4, height, width, channels)
    indices, draws = torch.tensor([2, 0, 0, 3, 1]), random_draws(5, seed)
    used = shared_cutout(draws) if cutout_scope == "batch" else draws
    batch = Augmentation(**options)(images, indices, used, raw_pixels(width, channels))
    expected = reference(images, indices, draws, (0.0,) * channels, (1 / 255,) * channels, **options)
    np.testing.assert_array_equal(batch.numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_augmentation_equals_reference_after_normalisation(channels: int, padding: str) -> None:
    options = {"flip": True, "crop_padding": 4, "padding": padding, "cutout_size": 5}
    images = random_images(6, 10, 13, channels)
    indices, draws = torch.arange(40) % 6, random_draws(40)
    mean, std = MEAN[:channels], STD[:channels]
    batch = Augmentation(**options)(images, indices, draws, Normalization(mean, std, 13, CPU))
    expected = reference(images, indices, draws, mean, std, **options)
    # Values below 4 made from three float32 numbers of that size: the error is a few times 2**-23.
    np.testing.assert_allclose(batch.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_augmentation_reaches_every_offset_with_and_without_flip(padding: str) -> None:
    # The centres of the 9 x 9 x 2 equal cells of the cube of draws.
    steps = torch.arange(9)
    cells = torch.cartesian_prod(steps, steps, torch.arange(2))
    middles = (cells + 0.5) / torch.tensor([9, 9, 2])
    draws = torch.cat([middles.T, torch.zeros(2, len(cells))])
    images = position_images(10, 12)
    indices = torch.zeros(len(cells), dtype=torch.long)
    options = {"flip": True, "crop_padding": 4, "padding": padding}
    batch = Augmentation(**options)(images, indices, draws, raw_pixels(12, 2))
    expected = reference(images, indices, draws, (0.0,) * 2, (1 / 255,) * 2, **options)
    np.testing.assert_array_equal(batch.numpy(), expected.astype(np.float32))
    assert len({image.numpy().tobytes() for image in batch}) == 162


def test_augmentation_draws_every_offset_and_flip_evenly() -> None:
    images = position_images(10, 10)
    images = Images(images.pixels.expand(1620, -1, -1, -1).contiguous(), torch.zeros(1620, dtype=torch.long))
    augmentation = Augmentation(flip=True, crop_padding=4)
    batches = train_batches(images, augmentation, raw_pixels(10, 2), batch_size=810)
    drawn = torch.cat([batch[0][:, :, 5, 4:6] for epoch in range(10) for batch in batches.epoch(epoch)]).int()
    # Row 5 shows row 5 + offset. Column 5 shows column 5 + offset, or mirrored column 4 + offset.
    row = drawn[:, 0, 0] - 1
    mirrored = drawn[:, 1, 0] > drawn[:, 1, 1]
    column = torch.where(mirrored, drawn[:, 1, 0], drawn[:, 1, 1]) - 1
    observed = torch.bincount((row * 9 + column) * 2 + mirrored, minlength=162).double()
    assert len(observed) == 162
    statistic = float(((observed - 100) ** 2 / 100).sum())
    # 162 cells, 100 expected in each. The seed is fixed; correct code would fail for one seed in 10**6.
    assert statistic < chi2.isf(1e-6, 161)


@pytest.mark.parametrize("crop_padding", [*range(1, 41), 127, 128])
def test_augmentation_largest_draw_gives_the_largest_offset(crop_padding: int) -> None:
    # 1 - 2**-24 is the largest float32 that torch.rand returns. Times 2p + 1, it must not round up.
    images = position_images(crop_padding + 1, crop_padding + 1)
    draws = torch.full((NUM_DRAWS, 1), 1 - 2**-24)
    augmentation = Augmentation(crop_padding=crop_padding)
    batch = augmentation(images, torch.tensor([0]), draws, raw_pixels(crop_padding + 1, 2))
    assert batch[0, :, 0, 0].tolist() == [crop_padding, crop_padding]


@pytest.mark.parametrize(
    ("row", "column", "blank_rows", "blank_columns"),
    [
        (0, 0, [0, 1], [0, 1]),
        (0, 7, [0, 1], [5, 6, 7]),
        (5, 0, [3, 4, 5], [0, 1]),
        (5, 7, [3, 4, 5], [5, 6, 7]),
        (2, 4, [0, 1, 2, 3], [2, 3, 4, 5]),
    ],
)
def test_augmentation_cutout_is_clipped_at_the_border(
    row: int, column: int, blank_rows: list[int], blank_columns: list[int]
) -> None:
    images = Images(torch.full((1, 6, 8, 3), 255, dtype=torch.uint8), torch.zeros(1, dtype=torch.long))
    draws = torch.tensor([0, 0, 0, (row + 0.5) / 6, (column + 0.5) / 8])[:, None]
    batch = Augmentation(cutout_size=4)(images, torch.tensor([0]), draws, Normalization(MEAN, STD, 8, CPU))
    expected = torch.zeros(6, 8, dtype=torch.bool)
    for blank_row in blank_rows:
        expected[blank_row, blank_columns] = True
    for channel in batch[0]:
        assert torch.equal(channel == 0, expected)


def test_augmentation_cutout_larger_than_the_image_blanks_all() -> None:
    augmentation = Augmentation(cutout_size=20)
    batch = augmentation(
        random_images(2, 6, 8, 3), torch.arange(2), random_draws(2), Normalization(MEAN, STD, 8, CPU)
    )
    assert batch.count_nonzero() == 0


def test_shared_cutout_leaves_its_input_alone() -> None:
    draws = random_draws(6)
    before = draws.clone()
    shared_cutout(draws)
    assert torch.equal(draws, before)


def test_augmentation_with_all_off_only_normalises() -> None:
    images = random_images(4, 5, 7, 3)
    indices = torch.tensor([3, 1, 1])
    batch = Augmentation()(images, indices, random_draws(3), raw_pixels(7, 3))
    assert torch.equal(batch, images.pixels[indices].permute(0, 3, 1, 2).float())


def test_augmentation_leaves_the_images_in_memory_unchanged() -> None:
    images = random_images(4, 6, 6, 3)
    before = images.pixels.clone()
    augmentation = Augmentation(flip=True, crop_padding=2, padding="zero", cutout_size=3)
    augmentation(images, torch.arange(4), random_draws(4), raw_pixels(6, 3)).fill_(0)
    assert torch.equal(images.pixels, before)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(), Augmentation(flip=True, crop_padding=2, padding="zero", cutout_size=3)],
    ids=["off", "on"],
)
def test_augmentation_returns_float32_in_channels_last(channels: int, augmentation: Augmentation) -> None:
    images = random_images(4, 6, 8, channels)
    batch = augmentation(images, torch.arange(4), random_draws(4), raw_pixels(8, channels))
    assert batch.shape == (4, channels, 6, 8)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("height", "width"), [(6, 9), (9, 6)])
def test_augmentation_check_refuses_a_border_as_wide_as_the_image(height: int, width: int) -> None:
    Augmentation(crop_padding=5).check(height, width)
    message = rf"^augmentation.crop_padding=6 must be below the image size, here {height} x {width} pixels$"
    with pytest.raises(ValueError, match=message):
        Augmentation(crop_padding=6).check(height, width)


def test_normalization_maps_mean_to_zero_and_one_std_more_to_one() -> None:
    # mean 51 / 255 and 102 / 255, std 51 / 255 and 25.5 / 255.
    normalize = Normalization((0.2, 0.4), (0.2, 0.1), 3, CPU)
    rows = torch.tensor([51, 102, 102, 153, 0, 255], dtype=torch.uint8).view(1, 1, 6)
    expected = torch.tensor([0.0, 0.0, 1.0, 2.0, -1.0, 6.0]).view(1, 1, 6)
    torch.testing.assert_close(normalize(rows), expected, rtol=0, atol=1e-6)
