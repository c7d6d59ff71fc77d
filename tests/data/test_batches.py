"""Tests of sam/data/batches.py."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sam.data.batches
from sam.data.augmentation import Augmentation, Normalization
from sam.data.auto_augment import AutoAugment
from sam.data.batches import Batch, EvaluationBatches, TrainBatches, generator_for
from sam.data.images import Images
from sam.data.policies import POLICIES
from tests.devices import host_never_waits
from tests.reference.batches import epoch_step_by_step

AUGMENTATION = Augmentation(flip=True, crop_padding=2, cutout_size=2)
CPU = torch.device("cpu")
# Leaves the numbers 0 .. 255 unchanged.
RAW = Normalization((0.0,), (1 / 255,), 4, CPU)


def numbered_images(num_images: int) -> Images:
    """Return 4 x 4 images; every pixel of an image, and its target, is the image's number."""
    numbers = torch.arange(num_images)
    pixels = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 4, 4, 1).contiguous()
    return Images(pixels, numbers)


def random_images(num_images: int) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (num_images, 4, 4, 1), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(num_images))


def train_batches(images: Images, **changes: Any) -> TrainBatches:
    chosen = {"augmentation": AUGMENTATION, "batch_size": 4, "seed": 3, "num_classes": 256, **changes}
    return TrainBatches(images, chosen.pop("augmentation"), RAW, device=CPU, **chosen)


def evaluation_batches(
    images: Images, normalize: Normalization, batch_size: int, rank: int = 0, world_size: int = 1
) -> EvaluationBatches:
    return EvaluationBatches(
        images, normalize, device=CPU, batch_size=batch_size, rank=rank, world_size=world_size
    )


def assert_same_batches(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for part, twin in zip(one, other, strict=True):
            assert (part is None and twin is None) or torch.equal(part, twin)


@settings(max_examples=20, deadline=None)
@given(num_images=st.integers(1, 30), batch_size=st.integers(1, 8), epoch=st.integers(0, 1000))
def test_epoch_sees_every_image_at_most_once(num_images: int, batch_size: int, epoch: int) -> None:
    batch_size = min(batch_size, num_images)
    batches = train_batches(
        numbered_images(num_images), augmentation=Augmentation(), batch_size=batch_size, seed=0
    )
    assert batches.steps_per_epoch == num_images // batch_size
    seen = [targets for _, targets, _ in batches.epoch(epoch)]
    assert [len(targets) for targets in seen] == [batch_size] * batches.steps_per_epoch
    numbers = torch.cat(seen).tolist()
    assert len(set(numbers)) == len(numbers) == batches.steps_per_epoch * batch_size
    assert set(numbers) <= set(range(num_images))


def test_epoch_pairs_every_image_with_its_target() -> None:
    augmentation = Augmentation(flip=True, crop_padding=3)
    for images, targets, _ in train_batches(
        numbered_images(23), augmentation=augmentation, batch_size=5
    ).epoch(0):
        assert torch.equal(images, targets.float().view(-1, 1, 1, 1).expand(-1, 1, 4, 4))


def test_epoch_yields_float32_channels_last_and_int64() -> None:
    images, targets, clean = next(train_batches(random_images(9)).epoch(0))
    assert clean is None
    assert images.shape == (4, 1, 4, 4)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert targets.dtype == torch.int64


def test_epochs_leave_out_different_images() -> None:
    batches = train_batches(numbered_images(11))
    seen = [torch.cat([targets for _, targets, _ in batches.epoch(epoch)]).tolist() for epoch in range(20)]
    # Each epoch leaves out 3 of 11 images: an image is in all 20 epochs with probability (8 / 11)**20.
    assert set.intersection(*map(set, seen)) == set()
    assert len({tuple(numbers) for numbers in seen}) == 20


def test_epoch_is_the_same_for_the_same_seed_and_epoch() -> None:
    images = random_images(23)
    torch.manual_seed(0)
    first = list(train_batches(images).epoch(2))
    torch.manual_seed(1)
    batches = train_batches(images)
    list(batches.epoch(7))
    assert_same_batches(list(batches.epoch(2)), first)


@pytest.mark.parametrize(("seed", "epoch"), [(4, 2), (3, 1)])
def test_epoch_differs_for_another_seed_or_epoch(seed: int, epoch: int) -> None:
    images = numbered_images(23)
    order = torch.cat([targets for _, targets, _ in train_batches(images).epoch(2)])
    other = torch.cat([targets for _, targets, _ in train_batches(images, seed=seed).epoch(epoch)])
    assert not torch.equal(order, other)


def test_epoch_draws_differ_between_steps_epochs_and_images() -> None:
    # All pictures are equal, so only the draws differ: 5 x 5 crops x 2 flips x 16 squares.
    picture = random_images(1).pixels.expand(64, -1, -1, -1).contiguous()
    batches = train_batches(Images(picture, torch.arange(64)), batch_size=32)
    drawn = [images for epoch in (0, 1) for images, _, _ in batches.epoch(epoch)]
    for left, right in itertools.combinations(drawn, 2):
        # Two of 800 equally likely outcomes agree once in 800 times (more often where cutout hides much).
        assert sum(torch.equal(a, b) for a, b in zip(left, right, strict=True)) < 8
    assert len({image.numpy().tobytes() for image in drawn[0]}) > 16


@pytest.mark.parametrize("first_step", range(6))
def test_epoch_resumed_at_a_step_equals_the_tail(first_step: int) -> None:
    batches = train_batches(random_images(23))
    assert batches.steps_per_epoch == 5
    assert_same_batches(list(batches.epoch(1, first_step)), list(batches.epoch(1))[first_step:])


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_epoch_shares_of_all_ranks_make_the_whole_batch(world_size: int) -> None:
    images = random_images(23)
    ranks = [
        list(train_batches(images, rank=rank, world_size=world_size).epoch(1)) for rank in range(world_size)
    ]
    joined = [
        (torch.cat([share[0] for share in shares]), torch.cat([share[1] for share in shares]), None)
        for shares in zip(*ranks, strict=True)
    ]
    assert_same_batches(joined, list(train_batches(images).epoch(1)))


def test_epoch_with_repeats_uses_each_image_so_often_and_begins_like_an_epoch_without() -> None:
    images = numbered_images(10)
    once = torch.cat([targets for _, targets, _ in train_batches(images, batch_size=2).epoch(1)])
    batches = train_batches(images, batch_size=4, repeats=3)
    assert batches.steps_per_epoch == 7
    numbers = torch.cat([targets for _, targets, _ in batches.epoch(1)])
    assert torch.equal(numbers[:10], once)
    assert torch.bincount(numbers, minlength=10).min() >= 2
    assert len(numbers) == 28


def test_epoch_of_fewer_images_than_a_batch_is_possible_with_repeats() -> None:
    batches = train_batches(numbered_images(3), batch_size=4, repeats=4)
    assert [len(targets) for _, targets, _ in batches.epoch(0)] == [4, 4, 4]


DRAWN: dict[str, dict[str, Any]] = {
    "plain": {},
    "shared cutout": {"augmentation": Augmentation(cutout_size=2, cutout_scope="batch")},
    "mixup": {"mixup_alpha": 1.0, "m": 4},
    "repeats": {"repeats": 3},
    "AutoAugment": {"policy": "cifar10"},
    "all": {"policy": "cifar10_released_code", "mixup_alpha": 8.0, "repeats": 2, "m": 2},
}


@pytest.mark.parametrize("case", DRAWN)
@pytest.mark.parametrize("world_size", [1, 2])
def test_epoch_has_the_batches_that_are_drawn_step_by_step(monkeypatch, case: str, world_size: int) -> None:
    images = random_images(43)
    images = dataclasses.replace(images, clean_targets=images.targets.flip(0))
    keys = {"augmentation": AUGMENTATION, "batch_size": 8, "seed": 3, "num_classes": 43, **DRAWN[case]}
    expected = list(epoch_step_by_step(images, keys.pop("augmentation"), RAW, epoch=2, **keys))
    policy = keys.pop("policy", None)
    if policy is not None:
        keys["auto_augment"] = AutoAugment(POLICIES[policy], images.shape, CPU)
    keys["augmentation"] = DRAWN[case].get("augmentation", AUGMENTATION)
    for at_once, ahead, first_step in ((1, 2, 0), (300, 1, 3), (10**6, 64, 0), (10**6, 3, 3)):
        monkeypatch.setattr(sam.data.batches, "BYTES_AT_ONCE", at_once)
        monkeypatch.setattr(sam.data.batches, "STEPS_AHEAD", ahead)
        shares = [
            train_batches(images, **keys, rank=rank, world_size=world_size).epoch(2, first_step)
            for rank in range(world_size)
        ]
        joined = [tuple(map(torch.cat, zip(*ranks, strict=True))) for ranks in zip(*shares, strict=True)]
        assert_same_batches(joined, expected[first_step:])


def batches_with_everything(device: torch.device) -> tuple[TrainBatches, EvaluationBatches]:
    """Return batches that use all that can be drawn, on a device."""
    images = random_images(43)
    images = dataclasses.replace(images, clean_targets=images.targets.flip(0))
    normalize = Normalization((0.0,), (1 / 255,), 4, device)
    train = TrainBatches(
        images,
        dataclasses.replace(AUGMENTATION, padding="zero", cutout_scope="batch"),
        normalize,
        device=device,
        batch_size=8,
        seed=3,
        num_classes=43,
        mixup_alpha=1.0,
        auto_augment=AutoAugment(POLICIES["cifar10_released_code"], images.shape, device),
    )
    return train, EvaluationBatches(images, normalize, device=device, batch_size=9)


def test_host_never_waits_for_the_device() -> None:
    # On the meta device, every operator fails that needs a value on the host.
    train, evaluation = batches_with_everything(torch.device("meta"))
    for batch in (*train.epoch(0), *evaluation):
        assert {part.device.type for part in batch if part is not None} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_host_never_waits_and_batches_are_those_of_the_cpu_on_cuda() -> None:
    on_cpu, evaluated = batches_with_everything(CPU)
    expected = [*on_cpu.epoch(0), *evaluated]
    train, evaluation = batches_with_everything(torch.device("cuda"))
    with host_never_waits():
        found = [*train.epoch(0), *evaluation]
    for batch, other in zip(found, expected, strict=True):
        for part, twin in zip(batch, other, strict=True):
            # One rounding more or less in the normalisation and in mixup.
            torch.testing.assert_close(part.cpu(), twin, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("cutout_scope", ["image", "batch"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_epoch_with_cutout_scope_batch_blanks_one_square_in_all_images_and_processes(
    world_size: int, cutout_scope: str
) -> None:
    white = Images(torch.full((16, 4, 4, 1), 255, dtype=torch.uint8), torch.arange(16))
    augmentation = Augmentation(cutout_size=2, cutout_scope=cutout_scope)
    ranks = [
        train_batches(white, augmentation=augmentation, batch_size=8, rank=rank, world_size=world_size).epoch(
            0
        )
        for rank in range(world_size)
    ]
    squares = []
    for shares in zip(*ranks, strict=True):
        batch = torch.cat([images for images, _, _ in shares])
        assert (batch.unique(dim=0).shape[0] == 1) == (cutout_scope == "batch")
        squares.append(batch[0])
    assert not torch.equal(*squares), "two batches have the same square"


def test_epoch_gives_clean_targets_if_labels_were_changed() -> None:
    images = dataclasses.replace(
        numbered_images(8), targets=torch.zeros(8, dtype=torch.long), clean_targets=torch.arange(8)
    )
    for pictures, targets, clean in train_batches(images, augmentation=Augmentation()).epoch(0):
        assert clean is not None
        assert torch.equal(clean, pictures[:, 0, 0, 0].long())
        assert targets.eq(0).all()


@pytest.mark.parametrize("spoiled", [False, True])
def test_epoch_with_mixup_blends_images_and_both_kinds_of_targets_alike(spoiled: bool) -> None:
    images = numbered_images(8)
    if spoiled:
        images = dataclasses.replace(images, clean_targets=images.targets, targets=(images.targets + 1) % 8)
    batches = train_batches(images, augmentation=Augmentation(), mixup_alpha=1.0, num_classes=8)
    blended = 0
    for pictures, targets, clean in batches.epoch(0):
        assert targets.shape == (4, 8)
        true = clean if clean is not None else targets
        # Every pixel of image i is i, so a blended picture has the mean of the two classes.
        torch.testing.assert_close(pictures[:, 0, 0, 0], true @ torch.arange(8.0))
        if spoiled:
            assert torch.equal(targets, true.roll(1, dims=1))
        assert (clean is not None) == spoiled
        blended += int((true.count_nonzero(1) == 2).sum())
    assert blended > 0
    assert_same_batches(list(batches.epoch(0, 1)), list(batches.epoch(0))[1:])


@pytest.mark.parametrize("world_size", [1, 2])
def test_epoch_with_mixup_does_not_depend_on_the_number_of_processes(world_size: int) -> None:
    ranks = [
        train_batches(
            random_images(16), batch_size=8, mixup_alpha=1.0, m=4, rank=rank, world_size=world_size
        ).epoch(0)
        for rank in range(world_size)
    ]
    joined = [
        tuple(torch.cat([share[part] for share in shares]) for part in (0, 1))
        for shares in zip(*ranks, strict=True)
    ]
    whole = train_batches(random_images(16), batch_size=8, mixup_alpha=1.0, m=4).epoch(0)
    for (images, targets), (expected, expected_targets, _) in zip(joined, whole, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(targets, expected_targets)


def test_train_batches_refuse_fewer_images_than_a_batch() -> None:
    with pytest.raises(
        ValueError, match=r"^batch_size=4, but there are only 3 training images; lower batch_size$"
    ):
        train_batches(random_images(3))


def test_train_batches_refuse_processes_that_cannot_share_a_batch() -> None:
    with pytest.raises(
        ValueError, match=r"^batch_size=4 cannot be shared by 3 processes; choose a multiple of 3$"
    ):
        train_batches(random_images(9), world_size=3)


def test_train_batches_refuse_a_border_wider_than_the_images() -> None:
    with pytest.raises(ValueError, match=r"^augmentation.crop_padding=4 must be below the image size"):
        train_batches(random_images(9), augmentation=Augmentation(crop_padding=4))


@pytest.mark.parametrize("num_images", [3, 23, 24])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_evaluation_batches_cover_every_image_exactly_once(num_images: int, world_size: int) -> None:
    numbers: list[int] = []
    for rank in range(world_size):
        for images, targets in evaluation_batches(numbered_images(num_images), RAW, 3, rank, world_size):
            assert 0 < len(targets) <= 3
            assert torch.equal(images, targets.float().view(-1, 1, 1, 1).expand(-1, 1, 4, 4))
            numbers += targets.tolist()
    assert sorted(numbers) == list(range(num_images))


def test_evaluation_batches_keep_order_and_end_with_the_rest() -> None:
    targets = [targets.tolist() for _, targets in evaluation_batches(numbered_images(8), RAW, 3)]
    assert targets == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_evaluation_batches_normalise_and_are_channels_last() -> None:
    pixels = torch.full((2, 4, 4, 3), 51, dtype=torch.uint8)
    normalize = Normalization((0.2, 0.1, 0.0), (0.2, 0.1, 0.4), 4, torch.device("cpu"))
    ((images, _),) = evaluation_batches(Images(pixels, torch.zeros(2, dtype=torch.long)), normalize, 5)
    expected = torch.tensor([0.0, 1.0, 0.5]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_generator_for_other_keys_gives_other_numbers() -> None:
    keys = [("order", 0, 0), ("order", 0, 1), ("order", 1, 0), ("augmentation", 0, 0), ("order", 0, 0, 0)]
    drawn = {tuple(torch.rand(4, generator=generator_for(*key)).tolist()) for key in keys}
    assert len(drawn) == len(keys)


def test_generator_for_a_key_never_changes() -> None:
    # The order and augmentation of all earlier runs depend on these numbers.
    assert generator_for("order", 0, 0).initial_seed() == 4876581156571347824
    assert generator_for("label noise", 7).initial_seed() == 3221211316635522158
