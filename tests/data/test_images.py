"""Tests of sam/data/images.py."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from sam.data.images import (
    Dataset,
    Images,
    hold_out,
    shrink,
    spoil_labels,
    stratified_subset,
    with_true_labels,
)


def shuffled_targets(class_sizes: list[int]) -> Tensor:
    targets = torch.repeat_interleave(torch.arange(len(class_sizes)), torch.tensor(class_sizes))
    return targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))]


def test_stratified_subset_takes_equal_shares_of_unequal_classes() -> None:
    targets = shuffled_targets([50, 30, 20])
    chosen = stratified_subset(targets, 60)
    assert torch.bincount(targets[chosen]).tolist() == [20, 20, 20]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.data())
def test_stratified_subset_classes_differ_by_at_most_one_unless_exhausted(
    class_sizes: list[int], data: st.DataObject
) -> None:
    targets = shuffled_targets(class_sizes)
    size = data.draw(st.integers(1, len(targets)))
    chosen = stratified_subset(targets, size)
    assert len(chosen) == size
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    shares = torch.bincount(targets[chosen], minlength=len(class_sizes)).tolist()
    for share, class_size in zip(shares, class_sizes, strict=True):
        assert share >= max(shares) - 1 or share == class_size


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.data())
def test_stratified_subset_is_part_of_every_larger_one(class_sizes: list[int], data: st.DataObject) -> None:
    targets = shuffled_targets(class_sizes)
    small = data.draw(st.integers(1, len(targets)))
    large = data.draw(st.integers(small, len(targets)))
    assert set(stratified_subset(targets, small).tolist()) <= set(stratified_subset(targets, large).tolist())


def test_stratified_subset_is_the_same_on_every_call() -> None:
    targets = shuffled_targets([9, 9, 9])
    torch.manual_seed(0)
    first = stratified_subset(targets, 10)
    torch.manual_seed(1)
    assert torch.equal(stratified_subset(targets, 10), first)


def test_stratified_subset_is_not_the_first_images() -> None:
    targets = torch.zeros(1000, dtype=torch.long)
    # The mean position of 100 out of 1000 has mean 500 and standard deviation 27.
    assert abs(stratified_subset(targets, 100).double().mean() - 500) < 6 * 27


def test_stratified_subset_of_all_images_is_all_of_them() -> None:
    assert torch.equal(stratified_subset(shuffled_targets([3, 1, 5]), 9), torch.arange(9))


def test_stratified_subset_refuses_more_images_than_there_are() -> None:
    with pytest.raises(ValueError, match=r"^8 images were asked for, but there are 7; ask for fewer$"):
        stratified_subset(torch.zeros(7, dtype=torch.long), 8)


def test_images_take_keeps_pixels_with_their_targets() -> None:
    pixels = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
    taken = Images(pixels, 10 * torch.arange(5)).take(torch.tensor([4, 0, 4]))
    assert len(taken) == 3
    assert taken.pixels.flatten().tolist() == [4, 0, 4]
    assert taken.targets.tolist() == [40, 0, 40]


def test_images_to_moves_pixels_and_targets() -> None:
    images = Images(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.zeros(2, dtype=torch.long))
    moved = images.to(torch.device("meta"))
    assert moved.pixels.device.type == moved.targets.device.type == "meta"


def test_dataset_counts_classes_and_channels() -> None:
    images = Images(torch.zeros(2, 4, 5, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.long))
    dataset = Dataset(images, images, ("cat", "dog"), (0.5,) * 3, (0.2,) * 3)
    assert dataset.num_classes == 2
    assert dataset.num_channels == 3


def numbered(num_images: int, num_validation: int | None = None) -> Dataset:
    pixels = torch.arange(num_images, dtype=torch.uint8).view(-1, 1, 1, 1)
    images = Images(pixels, torch.arange(num_images))
    return Dataset(images, images.take(torch.tensor([0])), ("a",), (0.0,), (1.0,), num_validation)


@pytest.mark.parametrize(("num_validation", "first"), [(None, 45), (7, 43)])
def test_hold_out_of_the_last_images_takes_as_many_as_the_released_code(
    num_validation: int | None, first: int
) -> None:
    data = hold_out(numbered(50, num_validation), "last")
    assert data.train.targets.tolist() == list(range(first))
    assert data.test.targets.tolist() == list(range(first, 50))


def test_hold_out_of_random_images_is_the_same_tenth_in_every_run() -> None:
    torch.manual_seed(0)
    first = hold_out(numbered(50), "random").test.targets.tolist()
    torch.manual_seed(1)
    data = hold_out(numbered(50), "random")
    assert data.test.targets.tolist() == first == sorted(first)
    assert len(first) == 5
    assert first != list(range(45, 50))
    assert sorted(data.train.targets.tolist() + first) == list(range(50))


def test_hold_out_gives_held_out_images_their_true_labels_only() -> None:
    data = numbered(20)
    spoiled = dataclasses.replace(data, train=spoil_labels(data.train, torch.zeros(20, dtype=torch.long)))
    held_out = hold_out(spoiled, "last")
    assert held_out.test.targets.tolist() == [18, 19]
    assert held_out.test.clean_targets is None
    assert held_out.train.targets.eq(0).all()
    assert held_out.train.clean_targets is not None
    assert held_out.train.clean_targets.tolist() == list(range(18))


def test_hold_out_refuses_too_few_images() -> None:
    with pytest.raises(
        ValueError, match=r"^dataset.validation=random: 4 training images are too few to hold some out$"
    ):
        hold_out(numbered(4), "random")


def test_spoiled_labels_remember_the_true_ones_through_everything() -> None:
    images = numbered(6).train
    twice = spoil_labels(spoil_labels(images, images.targets + 1), images.targets + 2)
    part = twice.take(torch.tensor([4, 1])).to(torch.device("cpu"))
    assert part.targets.tolist() == [6, 3]
    assert part.clean_targets is not None
    assert part.clean_targets.tolist() == [4, 1]
    assert with_true_labels(part).targets.tolist() == [4, 1]
    assert with_true_labels(part).clean_targets is None


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_picture_shows_the_pixels(channels: int, mode: str) -> None:
    pixels = torch.arange(2 * 4 * 5 * channels, dtype=torch.uint8).view(2, 4, 5, channels)
    picture = Images(pixels, torch.zeros(2, dtype=torch.long)).picture(1)
    assert (picture.mode, picture.size) == (mode, (5, 4))
    assert picture.tobytes() == pixels[1].numpy().tobytes()


def drawn(num_images: int, size: int, channels: int = 3) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (num_images, size, size, channels), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(num_images))


@pytest.mark.parametrize("size", [1, 7, 8, 15, 16])
def test_shrunk_constant_images_stay_constant(size: int) -> None:
    colours = torch.tensor([[0, 1, 255], [13, 127, 128]], dtype=torch.uint8)
    images = Images(colours.view(2, 1, 1, 3).expand(2, 16, 16, 3), torch.zeros(2, dtype=torch.long))
    assert torch.equal(shrink(images, size).pixels, colours.view(2, 1, 1, 3).expand(2, size, size, 3))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("own_size", "size"), [(32, 16), (32, 11), (28, 27), (28, 8)])
def test_shrunk_images_are_those_of_pillow(own_size: int, size: int, channels: int) -> None:
    images = drawn(3, own_size, channels)
    shrunk = shrink(images, size)
    assert (shrunk.pixels.dtype, shrunk.pixels.shape) == (torch.uint8, (3, size, size, channels))
    for number in range(3):
        expected = images.picture(number).resize((size, size), Image.Resampling.BILINEAR)
        own = torch.frombuffer(bytearray(shrunk.picture(number).tobytes()), dtype=torch.uint8)
        other = torch.frombuffer(bytearray(expected.tobytes()), dtype=torch.uint8)
        # Pillow averages over the same area, but rounds after each of its two passes.
        assert (own.int() - other.int()).abs().max() <= 1


def test_image_of_equal_blocks_shrinks_to_weighted_means_of_neighbours() -> None:
    # The filter has the weights 1, 3, 3, 1 (/ 8) over four pixels, so 1, 6, 1 over blocks of two.
    blocks = torch.tensor([[0.0, 80.0, 160.0, 240.0]]).expand(4, 4)
    pixels = blocks.repeat_interleave(2, 0).repeat_interleave(2, 1).to(torch.uint8).view(1, 8, 8, 1)
    shrunk = shrink(Images(pixels, torch.zeros(1, dtype=torch.long)), 4).pixels.view(4, 4)
    # At the border, the missing block has weight zero: (0 x 6 + 80) / 7.
    assert shrunk.tolist() == [[11, 80, 160, 229]] * 4


def test_shrunk_images_keep_labels_and_true_labels_and_their_order() -> None:
    # More images than shrink() resizes at a time.
    images = spoil_labels(drawn(1203, 8, 1), torch.arange(1203) % 7)
    shrunk = shrink(images, 4)
    assert torch.equal(shrunk.targets, images.targets)
    assert shrunk.clean_targets is not None
    assert torch.equal(shrunk.clean_targets, torch.arange(1203))
    alone = [shrink(images.take(torch.tensor([number])), 4).pixels[0] for number in (0, 499, 500, 1202)]
    assert torch.equal(shrunk.pixels[[0, 499, 500, 1202]], torch.stack(alone))
    assert shrunk.pixels.is_contiguous()


def test_images_shrunk_to_their_own_size_are_the_same() -> None:
    images = drawn(3, 8)
    assert torch.equal(shrink(images, 8).pixels, images.pixels)


def test_images_are_never_enlarged() -> None:
    message = r"^dataset.image_size=9: the images have 8 x 8 pixels and can only be shrunk; leave it null$"
    with pytest.raises(ValueError, match=message):
        shrink(drawn(1, 8), 9)
