"""Tests of sam/build_data.py."""

import numpy as np
import pytest
import torch
from PIL import Image

from sam import build_data
from sam.config import ConfigError
from sam.data.image_files import ImageFiles
from sam.data.images import Images
from sam.training.distributed import World
from tests.conftest import changed

CPU = torch.device("cpu")
SYNTHETIC = {
    "dataset.reader": "synthetic",
    "dataset.num_train": 100,
    "dataset.num_test": 20,
    "dataset.image_size": 8,
    "dataset.num_classes": 5,
}


@pytest.fixture
def folder(tmp_path):
    """Return an image folder of two classes, four training and two test pictures each, 12 x 10 pixels."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (12, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    return tmp_path


def from_folder(root, **changes):
    keys = {"dataset.reader": "image_folder", "dataset.root": str(root), "dataset.image_size": 8}
    keys |= {"batch_size": 4, "runtime.workers": 0}
    return changed({**keys, **changes})


def make(config):
    return build_data.dataset(config.dataset, config.seed)


@pytest.mark.parametrize("how", ["last", "random"])
def test_validation_takes_a_tenth_away_from_training_and_puts_it_in_the_place_of_the_test_images(how):
    whole = make(changed(SYNTHETIC))
    data = make(changed({**SYNTHETIC, "dataset.validation": how}))
    assert (len(data.train), len(data.test)) == (90, 10)
    pictures = [picture.numpy().tobytes() for part in (data.train, data.test) for picture in part.pixels]
    assert sorted(pictures) == sorted(picture.numpy().tobytes() for picture in whole.train.pixels)
    is_tail = torch.equal(data.test.pixels, whole.train.pixels[-10:])
    assert is_tail == (how == "last")


def test_validation_images_keep_their_true_labels_and_noise_counts_the_others():
    whole = make(changed(SYNTHETIC))
    noisy = {**SYNTHETIC, "dataset.validation": "last", "dataset.label_noise": 0.5}
    data = make(changed(noisy))
    assert torch.equal(data.test.targets, whole.train.targets[-10:])
    assert data.test.clean_targets is None
    assert torch.equal(data.train.clean_targets, whole.train.targets[:90])
    assert int((data.train.targets != data.train.clean_targets).sum()) == 45


@pytest.mark.parametrize("over", ["other_classes", "all_classes"])
def test_label_noise_follows_the_convention_that_is_asked_for(over):
    keys = {
        **SYNTHETIC,
        "dataset.num_train": 1000,
        "dataset.label_noise": 0.5,
        "dataset.label_noise_over": over,
    }
    train = make(changed(keys)).train
    wrong = int((train.targets != train.clean_targets).sum())
    # All 500 are wrong; or a fifth of them, 100 with a standard deviation of 9, is right by chance.
    assert wrong == 500 if over == "other_classes" else 345 < wrong < 455


@pytest.mark.parametrize("validation", ["none", "last"])
def test_labels_from_a_file_are_those_of_the_whole_training_set(tmp_path, validation):
    labels = np.arange(100) % 3
    np.savez(tmp_path / "labels.npz", worse=labels)
    keys = {**SYNTHETIC, "dataset.label_file": str(tmp_path / "labels.npz"), "dataset.label_name": "worse"}
    data = make(changed({**keys, "dataset.validation": validation}))
    clean = torch.arange(100) % 5
    assert data.train.targets.tolist() == labels[: len(data.train)].tolist()
    assert torch.equal(data.train.clean_targets, clean[: len(data.train)])
    if validation == "last":
        assert torch.equal(data.test.targets, clean[90:])


def test_a_label_file_that_does_not_fit_is_a_mistake_of_the_user(tmp_path):
    np.save(tmp_path / "labels.npy", np.arange(3))
    with pytest.raises(
        ConfigError, match=r"^dataset=.*labels.npy has shape \[3\], but the training set has 100"
    ):
        make(changed({**SYNTHETIC, "dataset.label_file": str(tmp_path / "labels.npy")}))


@pytest.mark.parametrize("in_memory", [True, False])
def test_files_make_the_same_evaluation_batches_in_memory_or_not(folder, in_memory):
    config = from_folder(folder, **{"dataset.in_memory": in_memory, "dataset.resize_size": 9})
    data = make(config)
    assert isinstance(data.test, Images if in_memory else ImageFiles)
    seen = list(build_data.evaluation_batches(config, data, data.test, CPU, World()))
    images = torch.cat([part for part, _ in seen])
    assert images.shape == (4, 3, 8, 8)
    assert torch.cat([targets for _, targets in seen]).tolist() == [0, 0, 1, 1]
    twin = make(from_folder(folder, **{"dataset.resize_size": 9}))
    pixels = images * torch.tensor(data.std).view(3, 1, 1) + torch.tensor(data.mean).view(3, 1, 1)
    torch.testing.assert_close(255 * pixels, twin.test.pixels.permute(0, 3, 1, 2).float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("changes", "uses_workers"),
    [
        ({}, False),
        ({"dataset.in_memory": False}, True),
        ({"augmentation.auto_augment": "cifar10"}, True),
        ({"dataset.in_memory": False, "augmentation.inception_crop": True}, True),
    ],
)
def test_train_batches_come_from_workers_only_where_images_are_made_one_by_one(folder, changes, uses_workers):
    config = from_folder(folder, **changes)
    batches = build_data.train_batches(config, make(config), CPU, World())
    assert batches.uses_workers == uses_workers
    for images, targets, clean in batches.epoch(0):
        assert (images.shape, targets.shape, clean) == ((4, 3, 8, 8), (4,), None)
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_inception_crop_draws_another_part_every_time(folder):
    config = from_folder(folder, **{"dataset.in_memory": False, "augmentation.inception_crop": True})
    batches = build_data.train_batches(config, make(config), CPU, World())
    seen = torch.cat([images for epoch in range(3) for images, _, _ in batches.epoch(epoch)])
    assert len(seen.unique(dim=0)) == 24


def test_large_images_are_evaluated_in_small_batches(folder):
    for size, expected in ((8, 4), (1024, 1)):
        config = from_folder(folder, **{"dataset.image_size": size, "dataset.in_memory": False})
        data = make(config)
        batches = build_data.evaluation_batches(config, data, data.test, CPU, World())
        assert len(next(iter(batches))[1]) == expected


def test_evaluation_batches_are_as_small_as_the_size_that_the_network_sees_wants_them():
    config = changed({**SYNTHETIC, "dataset.num_test": 500, "model.input_size": 600})
    data = make(config)
    batches = build_data.evaluation_batches(config, data, data.test, CPU, World())
    assert len(next(iter(batches))[1]) == 500 * 64 * 64 // 600**2 == 5


@pytest.mark.parametrize(
    ("m", "message"),
    [
        (None, r"^m=null: each of 2 processes would take its share .*; say m=64, or a divisor of it$"),
        (48, r"^m=48 does not divide the 64 images of each of 2 processes; choose a divisor$"),
    ],
)
def test_m_has_to_mean_the_same_on_any_number_of_processes(m, message):
    config = changed({**SYNTHETIC, "dataset.num_train": 256, "m": m})
    with pytest.raises(ConfigError, match=message):
        build_data.train_batches(config, make(config), CPU, World(0, 2))


def test_trained_weights_bring_their_own_normalisation():
    data = make(changed(SYNTHETIC))
    keys = {"model.architecture": "timm", "model.timm_name": "tf_efficientnet_lite0"}
    fresh = build_data.normalization(changed(keys).model, data, CPU)
    assert (fresh.mean, fresh.std) == (data.mean, data.std)
    trained = build_data.normalization(changed({**keys, "model.weights": "x.pt"}).model, data, CPU)
    assert (trained.mean, trained.std) == ((0.5,) * 3, (0.5,) * 3)
    grey = make(changed({}))
    of_grey = build_data.normalization(changed({**keys, "model.weights": "x.pt"}).model, grey, CPU)
    assert (of_grey.mean, of_grey.std) == (grey.mean, grey.std)
