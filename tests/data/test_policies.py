"""Tests of sam/data/policies.py."""

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from sam.data.policies import auto_augment, centre_crop, inception_crop, to_pixels

POLICIES = ["cifar10", "svhn", "imagenet"]


def random_picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def position_picture(width: int, height: int) -> Image.Image:
    """Return a picture in which red is a pixel's column, green its row, and blue 0."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns, rows, 0 * rows], 2).astype(np.uint8))


def seeded(transform, picture: Image.Image, seed: int) -> Image.Image:
    torch.manual_seed(seed)
    return transform(picture)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("policy", POLICIES)
def test_auto_augment_changes_most_pictures_and_keeps_size_and_mode(policy: str, mode: str) -> None:
    picture = random_picture(36, 28, mode)
    transform = auto_augment(policy)
    # Enough pictures to apply all 25 pairs with both operations of each.
    changed = [seeded(transform, picture, seed) for seed in range(400)]
    assert {(other.size, other.mode) for other in changed} == {(picture.size, mode)}
    assert len({other.tobytes() for other in changed}) > 25
    assert sum(other.tobytes() != picture.tobytes() for other in changed) > 200


@pytest.mark.parametrize("policy", POLICIES)
def test_auto_augment_leaves_its_input_alone(policy: str) -> None:
    picture = random_picture(32, 32)
    before = picture.tobytes()
    for seed in range(100):
        seeded(auto_augment(policy), picture, seed)
    assert picture.tobytes() == before


def test_auto_augment_policies_differ() -> None:
    picture = random_picture(32, 32)
    results = [
        [seeded(auto_augment(policy), picture, seed).tobytes() for seed in range(20)] for policy in POLICIES
    ]
    assert results[0] != results[1] != results[2] != results[0]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_auto_augment_uncovers_grey(mode: str) -> None:
    black = Image.new(mode, (32, 32))
    colours = [
        {colour for _, colour in seeded(auto_augment("cifar10"), black, seed).getcolors()}
        for seed in range(100)
    ]
    grey = (128, 128, 128) if mode == "RGB" else 128
    assert {black.getpixel((0, 0)), grey} in colours


@pytest.mark.parametrize(
    "transform",
    [*map(auto_augment, POLICIES), inception_crop(24, "bicubic")],
    ids=[*POLICIES, "inception_crop"],
)
def test_transform_is_fixed_by_the_seed_of_torch_alone(transform) -> None:
    picture = random_picture(40, 32)
    random.seed(0)
    np.random.seed(0)
    first = [seeded(transform, picture, seed).tobytes() for seed in range(60)]
    random.seed(1)
    np.random.seed(1)
    assert [seeded(transform, picture, seed).tobytes() for seed in range(60)] == first
    assert len(set(first)) > 20


@pytest.mark.parametrize(
    "transform",
    [auto_augment("cifar10"), inception_crop(24, "bicubic"), centre_crop(28, 24, "bilinear")],
    ids=["auto_augment", "inception_crop", "centre_crop"],
)
def test_transform_reaches_a_worker_process_unchanged(transform) -> None:
    # With spawned processes, a DataLoader pickles the transforms of its workers.
    picture = random_picture(40, 32)
    copy = pickle.loads(pickle.dumps(transform))
    for seed in range(20):
        assert seeded(copy, picture, seed).tobytes() == seeded(transform, picture, seed).tobytes()


def test_inception_crop_area_and_ratio_fill_their_ranges() -> None:
    picture = position_picture(240, 240)
    transform = inception_crop(60, "bilinear")
    sides = []
    for seed in range(1000):
        crop = np.asarray(seeded(transform, picture, seed), dtype=float)
        # Away from the border, a resized ramp is a ramp; its slope is source pixels per pixel.
        sides.append(
            ((crop[30, 50, 0] - crop[30, 10, 0]) * 60 / 40, (crop[50, 30, 1] - crop[10, 30, 1]) * 1.5)
        )
    width, height = np.array(sides).T
    area, ratio = width * height / 240**2, width / height
    # Slopes are measured on bytes: an error of up to 1 in 40 steps, or 1.5 of at least 59 pixels.
    assert 0.08 * 0.95 < area.min() < 0.1
    assert 0.95 < area.max() < 1.04
    assert 0.75 * 0.95 < ratio.min() < 0.78
    assert 1.28 < ratio.max() < 4 / 3 * 1.05


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_inception_crop_equals_pillow(interpolation: str) -> None:
    # Smooth, like a photograph: on noise, bicubic overshoots, and the two clip at different steps.
    picture = random_picture(9, 6).resize((75, 50), Image.Resampling.BICUBIC)
    for seed in range(20):
        torch.manual_seed(seed)
        # torchvision's older transforms draw the same box with separate code.
        top, left, height, width = RandomResizedCrop.get_params(picture, [0.08, 1], [3 / 4, 4 / 3])
        box = picture.crop((left, top, left + width, top + height))
        expected = box.resize((30, 30), Image.Resampling[interpolation.upper()])
        crop = seeded(inception_crop(30, interpolation), picture, seed)
        # torch and Pillow sometimes round their fixed-point sums differently.
        difference = np.abs(np.asarray(crop, dtype=int) - np.asarray(expected, dtype=int))
        assert difference.max() <= 1
        assert difference.mean() < 0.25


@pytest.mark.parametrize("size", [(300, 30), (30, 300), (20, 20), (224, 180)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_inception_crop_makes_a_square_of_any_picture(size: tuple[int, int], interpolation: str) -> None:
    for seed in range(10):
        assert seeded(inception_crop(32, interpolation), random_picture(*size), seed).size == (32, 32)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 96)])
def test_centre_crop_of_a_ramp_is_the_ramp(width: int, height: int, interpolation: str) -> None:
    crop = np.asarray(centre_crop(32, 20, interpolation)(position_picture(width, height)))
    # Pixel j of the halved picture is an average around 2j + 1/2, rounded up or down to a byte.
    left, top = (width // 2 - 20) // 2, (height // 2 - 20) // 2
    columns, rows = 2 * (left + np.arange(20)) + 0.5, 2 * (top + np.arange(20)) + 0.5
    assert crop.shape == (20, 20, 3)
    assert np.abs(crop[:, :, 0] - columns[None, :]).max() <= 0.5
    assert np.abs(crop[:, :, 1] - rows[:, None]).max() <= 0.5


def test_centre_crop_without_resize_is_a_slice() -> None:
    picture = random_picture(40, 32)
    crop = centre_crop(32, 24, "bilinear")(picture)
    np.testing.assert_array_equal(np.asarray(crop), np.asarray(picture)[4:28, 8:32])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_centre_crop_equals_pillow(interpolation: str) -> None:
    picture = random_picture(75, 50)
    resized = picture.resize((45, 30), Image.Resampling[interpolation.upper()])
    crop = centre_crop(30, 15, interpolation)(picture)
    np.testing.assert_array_equal(np.asarray(crop), np.asarray(resized.crop((15, 8, 30, 23))))


def test_centre_crop_refuses_a_square_larger_than_the_picture() -> None:
    message = "^resize_size=32 must be at least image_size=33; raise resize_size or lower image_size$"
    with pytest.raises(ValueError, match=message):
        centre_crop(32, 33, "bilinear")


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_to_pixels_returns_bytes_with_channels_last(mode: str, channels: int) -> None:
    picture = random_picture(7, 5, mode)
    pixels = to_pixels(picture)
    assert pixels.shape == (5, 7, channels)
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    np.testing.assert_array_equal(pixels.numpy(), np.asarray(picture).reshape(5, 7, channels))
