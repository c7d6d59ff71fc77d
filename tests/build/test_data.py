"""Tests of sam/build/data.py; more than 300 lines, for one is needed for every key that it reads."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from sam.build.data import (
    READERS,
    load_dataset,
    make_evaluation_batches,
    make_normalization,
    make_train_batches,
)
from sam.build.resolved import resolve
from sam.config.dataset import FILE_READERS
from sam.config.schema import config_items
from sam.data import datasets, file_datasets
from sam.data.augmentation import Augmentation, Normalization
from sam.data.auto_augment import AutoAugment
from sam.data.batches import TrainBatches
from sam.data.image_files import ImageFiles
from sam.data.images import Images, stratified_subset
from sam.data.loading import Loader
from sam.data.policies import POLICIES, auto_augment, centre_crop, inception_crop
from sam.system.errors import ConfigError
from sam.system.processes import ProcessInfo
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
    return load_dataset(config.dataset, config.seed)


IN_ROOT = {"root": Path("/some/where"), "download": False}
AS_ARRAYS = {**IN_ROOT, "verify": False}
AS_FILES = {"image_size": 8, "resize_size": 9, "interpolation": "bicubic", "in_memory": False}
# The function behind every reader, and what it is given.
CALLS = {
    "fashion_mnist": (datasets, "fashion_mnist", AS_ARRAYS),
    "cifar10": (datasets, "cifar", {"name": "cifar10", **AS_ARRAYS}),
    "cifar100": (datasets, "cifar", {"name": "cifar100", **AS_ARRAYS}),
    "svhn": (datasets, "svhn", {"extra": False, **AS_ARRAYS}),
    "image_folder": (file_datasets, "image_folder", {"root": IN_ROOT["root"], **AS_FILES}),
    **{
        name: (file_datasets, "torchvision_files", {"name": name, **IN_ROOT, **AS_FILES})
        for name in FILE_READERS
        if name != "image_folder"
    },
}


def received(monkeypatch, module, function, changes):
    """Read a dataset; return the mock that stood in for the function that reads it."""
    reader = mock.create_autospec(getattr(module, function), return_value=make(changed(SYNTHETIC)))
    monkeypatch.setattr(module, function, reader)
    make(changed(changes))
    return reader


@pytest.mark.parametrize("name", CALLS)
def test_readers_are_given_what_the_config_says(monkeypatch, name):
    module, function, arguments = CALLS[name]
    keys = {
        "download": False,
        "verify": False,
        "extra": False,
        **AS_FILES,
        "reader": name,
        "root": "/some/where",
    }
    reader = received(monkeypatch, module, function, {f"dataset.{key}": keys[key] for key in keys})
    reader.assert_called_once_with(**arguments)


def test_readers_are_given_the_defaults_of_a_config_that_says_little(monkeypatch):
    files = {"dataset.reader": "flowers102", "dataset.root": "~/data", "dataset.image_size": 8}
    received(monkeypatch, file_datasets, "torchvision_files", files).assert_called_once_with(
        "flowers102",
        Path.home() / "data",
        download=True,
        image_size=8,
        resize_size=8,
        interpolation="bilinear",
        in_memory=True,
    )
    reader = received(monkeypatch, datasets, "svhn", {"dataset.reader": "svhn"})
    reader.assert_called_once_with(Path("data"), download=True, verify=True, extra=True)


def test_readers_are_all_tested():
    # These two read no files of the user; every other test here reads them.
    assert {*CALLS, "fashion_mnist_mini", "synthetic"} == set(READERS)


def test_subsets_have_equal_shares_of_the_true_classes_whatever_is_trained_on(tmp_path):
    whole = make(changed({}))
    labels = (whole.train.targets + torch.arange(5000) % 3).clamp(max=9)
    np.save(tmp_path / "labels.npy", labels.numpy())
    keys = {"dataset.num_train": 50, "dataset.label_file": str(tmp_path / "labels.npy")}
    data = make(changed({**keys, "dataset.num_test": 30}))
    chosen = stratified_subset(whole.train.targets, 50)
    assert data.train.clean_targets.bincount().tolist() == [5] * 10
    assert torch.equal(data.train.clean_targets, whole.train.targets[chosen])
    assert torch.equal(data.train.targets, labels[chosen])
    assert torch.equal(data.train.pixels, whole.train.pixels[chosen])
    assert data.test.targets.bincount().tolist() == [3] * 10
    assert torch.equal(data.test.pixels, whole.test.pixels[stratified_subset(whole.test.targets, 30)])


def test_each_seed_draws_its_own_subset_which_shares_no_image_with_tuning():
    def pictures(**changes):
        data = make(changed({"dataset.num_train": 200, **changes}))
        return {image.numpy().tobytes() for image in data.train.pixels}, data

    tuning = make(changed({"dataset.num_train": 200, "dataset.validation": "random"}))
    used = {image.numpy().tobytes() for split in (tuning.train, tuning.test) for image in split.pixels}
    first, data = pictures(**{"dataset.subset_seed": "run", "seed": 100})
    second, _ = pictures(**{"dataset.subset_seed": "run", "seed": 101})
    assert len(first) == len(second) == 200 and data.train.targets.bincount().tolist() == [20] * 10
    assert not first & used and not second & used
    assert len(first & second) < 40
    assert pictures(**{"dataset.subset_seed": "run", "seed": 100, "optimizer.name": "sam"})[0] == first
    assert pictures(seed=100)[0] == pictures(seed=101)[0], "the fixed subset does not depend on the seed"


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


def test_asymmetric_label_noise_replaces_labels_by_similar_classes(monkeypatch):
    monkeypatch.setitem(READERS, "cifar10", READERS["synthetic"])
    keys = {
        **SYNTHETIC,
        "dataset.num_train": 1000,
        "dataset.num_classes": 10,
        "dataset.reader": "cifar10",
        "dataset.label_noise": 0.4,
        "dataset.label_noise_kind": "asymmetric",
    }
    train = make(changed(keys)).train
    wrong = train.targets != train.clean_targets
    pairs = set(zip(train.clean_targets[wrong].tolist(), train.targets[wrong].tolist(), strict=True))
    assert pairs == {(9, 1), (2, 0), (4, 7), (3, 5), (5, 3)}
    assert int(wrong.sum()) == 200


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


def test_images_in_memory_are_shrunk_and_keep_their_labels():
    keys = {"dataset.num_train": 60, "dataset.num_test": 30, "dataset.label_noise": 0.5}
    whole = make(changed(keys))
    data = make(changed({**keys, "dataset.image_size": 14}))
    for split, large in ((data.train, whole.train), (data.test, whole.test)):
        assert split.shape == (14, 14, 1)
        assert torch.equal(split.targets, large.targets)
        for number in (0, len(split) - 1):
            picture = np.asarray(large.picture(number).resize((14, 14), Image.Resampling.BILINEAR))
            assert np.abs(np.asarray(split.picture(number)).astype(int) - picture).max() <= 1
    assert torch.equal(data.train.clean_targets, whole.train.clean_targets)
    assert (data.mean, data.std) == (whole.mean, whole.std)


@pytest.mark.parametrize("validation", ["none", "last"])
def test_images_are_shrunk_whichever_are_held_out(validation):
    data = make(changed({"dataset.image_size": 8, "dataset.num_train": 20, "dataset.validation": validation}))
    assert data.train.shape == data.test.shape == (8, 8, 1)


def test_images_are_not_enlarged():
    with pytest.raises(ConfigError, match=r"^dataset=fashion_mnist_mini: dataset.image_size=29: the images"):
        make(changed({"dataset.image_size": 29}))


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
    seen = list(make_evaluation_batches(config.model, data, data.test, resolve(config)))
    images = torch.cat([part for part, _ in seen])
    assert images.shape == (4, 3, 8, 8)
    assert torch.cat([targets for _, targets in seen]).tolist() == [0, 0, 1, 1]
    twin = make(from_folder(folder, **{"dataset.resize_size": 9}))
    pixels = images * torch.tensor(data.std).view(3, 1, 1) + torch.tensor(data.mean).view(3, 1, 1)
    torch.testing.assert_close(255 * pixels, twin.test.pixels.permute(0, 3, 1, 2).float(), atol=1e-3, rtol=0)


PER_BATCH = {"augmentation.auto_augment_draws": "batch"}


@pytest.mark.parametrize(
    ("changes", "uses_workers"),
    [
        ({}, False),
        ({"dataset.in_memory": False}, True),
        ({"augmentation.auto_augment": "cifar10"}, True),
        ({"augmentation.auto_augment": "cifar10", **PER_BATCH}, False),
        ({"augmentation.auto_augment": "cifar10", "dataset.in_memory": False, **PER_BATCH}, True),
        ({"dataset.in_memory": False, "augmentation.inception_crop": True}, True),
    ],
)
def test_train_batches_come_from_workers_only_where_images_are_made_one_by_one(folder, changes, uses_workers):
    config = from_folder(folder, **changes)
    batches = make_train_batches(config, make(config), resolve(config))
    assert batches.uses_workers == uses_workers
    for images, targets, clean in batches.epoch(0):
        assert (images.shape, targets.shape, clean) == ((4, 3, 8, 8), (4,), None)
        assert images.is_contiguous(memory_format=torch.channels_last)


# All that is drawn for a batch is on, so that every key below matters.
DRAWN = {
    **SYNTHETIC,
    "batch_size": 20,
    "augmentation.crop_padding": 2,
    "augmentation.cutout_size": 4,
    "augmentation.mixup_alpha": 1.0,
    "runtime.workers": 0,
}
# A key and its value, and the argument of Augmentation or of TrainBatches that it stands for.
BATCHES = [
    ("augmentation.flip", True, {"flip": True}, {}),
    ("augmentation.crop_padding", 3, {"crop_padding": 3}, {}),
    ("augmentation.padding", "zero", {"padding": "zero"}, {}),
    ("augmentation.cutout_size", 3, {"cutout_size": 3}, {}),
    ("augmentation.cutout_scope", "batch", {"cutout_scope": "batch"}, {}),
    ("augmentation.mixup_alpha", 8.0, {}, {"mixup_alpha": 8.0}),
    ("dataset.repeats", 3, {}, {"repeats": 3}),
    ("batch_size", 10, {}, {"batch_size": 10}),
    ("seed", 1, {}, {"seed": 1}),
    ("m", 5, {}, {"m": 5}),
]


def batches_by_hand(data, augmentation=None, **changes):
    """Return the batches of DRAWN, or others."""
    drawn = Augmentation(**{"crop_padding": 2, "cutout_size": 4, **(augmentation or {})})
    arguments = {"batch_size": 20, "seed": 0, "num_classes": 5, "mixup_alpha": 1.0, **changes}
    return TrainBatches(
        data.train, drawn, Normalization(data.mean, data.std, 8, CPU), device=CPU, **arguments
    )


def configured(changes, rank=0, world_size=1):
    config = changed(changes)
    return make_train_batches(config, make(config), resolve(config, ProcessInfo(rank, world_size)))


def assert_same(batches, twins, same=True):
    """Compare all images and targets of an epoch; same=False: they must differ."""
    pairs = [[torch.cat(part) for part in list(zip(*some.epoch(1)))[:2]] for some in (batches, twins)]
    assert all(map(torch.equal, *pairs)) == same


@pytest.mark.parametrize(
    ("key", "value", "augmentation", "arguments"), BATCHES, ids=[case[0] for case in BATCHES]
)
def test_train_batches_are_what_every_key_says(key, value, augmentation, arguments):
    batches = configured({**DRAWN, key: value})
    by_hand = batches_by_hand(make(changed(DRAWN)), augmentation, **arguments)
    assert_same(batches, by_hand)
    assert_same(batches, configured(DRAWN), same=False)
    assert batches.steps_per_epoch == {"dataset.repeats": 15, "batch_size": 10}.get(key, 5)


def test_train_batches_of_a_process_are_its_share():
    keys = {**DRAWN, "m": 5}
    batches = configured(keys, rank=1, world_size=2)
    assert_same(batches, batches_by_hand(make(changed(keys)), m=5, rank=1, world_size=2))
    assert_same(batches, configured(keys, rank=0, world_size=2), same=False)


@pytest.mark.parametrize("policy", ["cifar10", "svhn", "imagenet"])
def test_train_batches_follow_the_policy_of_auto_augment(policy):
    data = make(changed(DRAWN))
    loader = Loader(data.train, [auto_augment(policy)], num_workers=0, pin_memory=False)
    batches = configured({**DRAWN, "augmentation.auto_augment": policy})
    assert_same(batches, batches_by_hand(data, loader=loader))
    other = "svhn" if policy == "imagenet" else "imagenet"
    assert_same(batches, configured({**DRAWN, "augmentation.auto_augment": other}), same=False)


@pytest.mark.parametrize("policy", POLICIES)
def test_train_batches_follow_the_policy_of_auto_augment_per_batch(policy):
    data = make(changed(DRAWN))
    changes = AutoAugment(POLICIES[policy], (8, 8, 3), CPU)
    batches = configured({**DRAWN, "augmentation.auto_augment": policy, **PER_BATCH})
    assert_same(batches, batches_by_hand(data, auto_augment=changes))
    assert_same(batches, configured({**DRAWN, **PER_BATCH}), same=False)


@pytest.mark.parametrize("inception", [True, False])
def test_train_batches_of_files_are_cropped_before_auto_augment(folder, inception):
    keys = {"augmentation.inception_crop": inception, "augmentation.auto_augment": "cifar10"}
    config = from_folder(
        folder, **keys, **{f"dataset.{key}": AS_FILES[key] for key in AS_FILES}, **{"dataset.repeats": 10}
    )
    data = make(config)
    crop = inception_crop(8, "bicubic") if inception else centre_crop(9, 8, "bicubic")
    steps = [crop, auto_augment("cifar10")]
    batches = make_train_batches(config, data, resolve(config))
    for order, same in ((steps, True), (steps[::-1], False)):
        loader = Loader(data.train, order, num_workers=0, pin_memory=False)
        off = {"crop_padding": 0, "cutout_size": 0}
        twin = batches_by_hand(data, off, loader=loader, batch_size=4, mixup_alpha=0.0, repeats=10)
        assert_same(batches, twin, same)


def test_train_batches_are_tested_with_every_key_of_augmentation():
    # The name stands in paths only; the others have tests of their own.
    names = ("name", "auto_augment", "auto_augment_draws", "inception_crop")
    others = {f"augmentation.{name}" for name in names}
    keys = {key for key, _, _ in config_items(changed({})) if key.startswith("augmentation.")}
    assert {key for key, *_ in BATCHES if key.startswith("augmentation.")} | others == keys


def test_loader_has_the_workers_of_this_process(monkeypatch):
    loader = mock.create_autospec(Loader)
    monkeypatch.setattr("sam.build.data.Loader", loader)
    configured({**DRAWN, "augmentation.auto_augment": "cifar10", "runtime.workers": 3})
    assert loader.call_args.kwargs["num_workers"] == 3


def test_inception_crop_draws_another_part_every_time(folder):
    config = from_folder(folder, **{"dataset.in_memory": False, "augmentation.inception_crop": True})
    batches = make_train_batches(config, make(config), resolve(config))
    seen = torch.cat([images for epoch in range(3) for images, _, _ in batches.epoch(epoch)])
    assert len(seen.unique(dim=0)) == 24


def test_large_images_are_evaluated_in_small_batches(folder):
    for size, expected in ((8, 4), (1024, 1)):
        config = from_folder(folder, **{"dataset.image_size": size, "dataset.in_memory": False})
        data = make(config)
        batches = make_evaluation_batches(config.model, data, data.test, resolve(config))
        assert len(next(iter(batches))[1]) == expected


def test_evaluation_batches_are_as_small_as_the_size_that_the_network_sees_wants_them():
    config = changed({**SYNTHETIC, "dataset.num_test": 500, "model.input_size": 600})
    data = make(config)
    batches = make_evaluation_batches(config.model, data, data.test, resolve(config))
    assert len(next(iter(batches))[1]) == 500 * 64 * 64 // 600**2 == 5


def test_trained_weights_bring_their_own_normalisation():
    data = make(changed(SYNTHETIC))
    keys = {"model.architecture": "timm", "model.timm_name": "tf_efficientnet_lite0"}
    fresh = make_normalization(changed(keys).model, data, CPU)
    assert (fresh.mean, fresh.std) == (data.mean, data.std)
    trained = make_normalization(changed({**keys, "model.weights": "x.pt"}).model, data, CPU)
    assert (trained.mean, trained.std) == ((0.5,) * 3, (0.5,) * 3)
    grey = make(changed({}))
    of_grey = make_normalization(changed({**keys, "model.weights": "x.pt"}).model, grey, CPU)
    assert (of_grey.mean, of_grey.std) == (grey.mean, grey.std)


def test_unverified_data_are_announced_once_by_the_main_process(monkeypatch, capsys):
    keys = {"dataset.reader": "cifar100", "dataset.root": "/some/where", "dataset.verify": False}
    data = make(changed(SYNTHETIC))
    monkeypatch.setattr(datasets, "cifar", lambda *_: data)
    make(changed(keys))
    assert capsys.readouterr().err == (
        "warning: dataset.verify=false: the checksums of cifar100 in /some/where are not verified; "
        "results are marked as not verified\n"
    )
    monkeypatch.setenv("RANK", "1")
    make(changed(keys))
    monkeypatch.delenv("RANK")
    make(changed({**keys, "dataset.verify": True}))
    assert capsys.readouterr().err == ""
