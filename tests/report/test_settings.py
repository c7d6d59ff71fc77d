"""Tests of sam/report/settings.py."""

import dataclasses
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam.config.schema import TrainConfig, config_items
from sam.report.settings import setting_of, setting_titles, without
from tests.record.run_directories import make_config

KEYS = [key for key, _, _ in config_items(TrainConfig())]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"outputs": "elsewhere"},
        {"force": True},
        {"dataset__root": "/elsewhere"},
        {"dataset__download": False},
        {"runtime__device": "cuda"},
        {"optimizer__name": "sam"},
        {"optimizer__rho": 0.2},
        {"optimizer__adaptive": True},
        {"optimizer__p": float("inf")},
        {"optimizer__ascent_steps": 3},
        {"runtime__workers": 4},
    ],
)
def test_setting_does_not_depend_on(change: dict[str, Any]) -> None:
    assert setting_of(make_config(**change)) == setting_of(make_config())


@pytest.mark.parametrize(
    "change",
    [
        {"runtime__precision": "bf16"},
        {"dataset__label_noise": 0.2},
        {"dataset__num_train": 1000},
        {"augmentation__cutout_size": 16},
        {"model__width": 2},
        {"optimizer__lr": 0.05},
        {"epochs": 400},
        {"batch_size": 128},
        {"m": None},
        {"label_smoothing": 0.1},
        {"optimizer__weight_decay_in": "loss"},
        {"optimizer__clip_norm": None},
        {"dataset__validation": "last"},
        {"dataset__relabel_from": "outputs/sgd/seed0-12345678"},
        {"dataset__verify": False},
        {"dataset__label_file": "labels.npy"},
        {"augmentation__mixup_alpha": 1.0},
    ],
)
def test_setting_depends_on(change: dict[str, Any]) -> None:
    assert setting_of(make_config(**change)).key != setting_of(make_config()).key


def test_setting_depends_on_keys_of_later_versions_that_are_set() -> None:
    config, setting = make_config(), setting_of(make_config())
    assert setting_of({**config, "later_key": "on"}).key != setting.key
    assert setting_of({**config, "later_key": None}) == setting
    assert setting_of({**config, "runtime": {**config["runtime"], "later_key": 3}}) == setting


@given(absent=st.sets(st.sampled_from(KEYS)))
@settings(deadline=None)
def test_setting_without_a_key_equals_setting_with_its_default(absent: set[str]) -> None:
    config = dataclasses.asdict(TrainConfig())
    whole = setting_of(config)
    for key in absent - {"dataset.name", "model.name", "augmentation.name", "optimizer.name", "epochs"}:
        *groups, last = key.split(".")
        section = config
        for group in groups:
            section = section[group]
        del section[last]
    assert setting_of(config) == whole


def test_setting_of_another_bootstrap_is_another() -> None:
    one, other, again = (
        setting_of(make_config(dataset__relabel_from=f"outputs/{source}"))
        for source in ("sgd/seed0-12345678", "sgd/seed0-87654321", "sgd/seed30-12345678/")
    )
    assert one.key != other.key
    assert one.fields["dataset.relabel_from"] == os.path.normpath("outputs/sgd/seed*-12345678")
    assert again.key == one.key


@pytest.mark.parametrize(
    ("validation", "split"), [("none", "test"), ("last", "validation"), ("random", "validation")]
)
def test_setting_split_is_validation_where_images_are_held_out(validation: str, split: str) -> None:
    assert setting_of(make_config(dataset__validation=validation)).split == split


@pytest.mark.parametrize(
    "change",
    [
        {"dataset__label_noise": 0.2},
        {"dataset__label_file": "labels.npy"},
        {"dataset__relabel_from": "outputs/sgd/seed0-12345678"},
    ],
)
def test_setting_has_clean_labels_unless_they_are_spoiled(change: dict[str, Any]) -> None:
    assert setting_of(make_config()).has_clean_labels
    assert not setting_of(make_config(**change)).has_clean_labels


def test_setting_with_whole_float_equals_setting_with_int() -> None:
    whole = setting_of(make_config(optimizer__clip_norm=5))
    assert whole.key == setting_of(make_config(optimizer__clip_norm=5.0)).key


def test_setting_of_image_folders_depends_on_the_path() -> None:
    one, two = (
        setting_of(make_config(dataset__reader="image_folder", dataset__root=root))
        for root in ("birds", "cars")
    )
    assert one.key != two.key


def test_setting_details_tell_what_the_title_does_not() -> None:
    setting = setting_of(make_config())
    assert setting.details == (
        "label_smoothing=0, optimizer.clip_norm=5, optimizer.lr=0.1, optimizer.momentum=0.9, "
        "optimizer.nesterov=true, optimizer.weight_decay=0.0005, "
        "optimizer.weight_decay_in=optimizer, runtime.precision=fp32"
    )


def test_setting_title_names_the_condition() -> None:
    setting = setting_of(make_config())
    titles = setting_titles([setting, setting])
    assert titles == {setting.key: "cifar10, wrn_28_10, basic, epochs 200, batch 256, m 32"}


def test_setting_title_tells_label_noise_and_subsets() -> None:
    setting = setting_of(make_config(dataset__label_noise=0.2, dataset__num_train=500, dataset__num_test=100))
    (title,) = setting_titles([setting]).values()
    assert title.endswith("label noise 0.2, 500 training images, 100 test images")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"validation": "last"}, ", m 32, validation on the last tenth"),
        ({"validation": "random", "num_test": 100}, ", 100 validation images, validation on a random tenth"),
        (
            {"label_noise": 0.4, "label_noise_over": "all_classes"},
            ", label noise 0.4, drawn over all_classes",
        ),
        ({"label_noise": 0.4, "label_noise_kind": "asymmetric"}, ", label noise 0.4, asymmetric"),
        ({"label_file": "c10n.npz", "label_name": "worse_label"}, ", labels of c10n.npz, worse_label"),
        ({"relabel_from": "seed3-1234"}, ", labels predicted by seed*-1234"),
        ({"num_train": 500, "subset_seed": "run"}, ", 500 training images, drawn per seed"),
        ({"verify": False}, ", m 32, not verified"),
        ({"verify": True}, ", m 32"),
        ({"validation": "none", "label_noise_over": "other_classes", "label_file": None}, ", m 32"),
    ],
)
def test_setting_title_shows_changes_of_the_images(changes: dict[str, Any], told: str) -> None:
    setting = setting_of(make_config(**{f"dataset__{key}": changes[key] for key in changes}))
    (title,) = setting_titles([setting]).values()
    assert title.endswith(told)


def test_setting_titles_add_what_tells_namesakes_apart() -> None:
    plain = setting_of(make_config())
    smooth = setting_of(make_config(label_smoothing=0.1))
    other = setting_of(make_config(dataset__name="cifar100", label_smoothing=0.1))
    titles = setting_titles([plain, smooth, other])
    assert titles[plain.key].endswith("m 32, label_smoothing=0")
    assert titles[smooth.key].endswith("m 32, label_smoothing=0.1")
    assert titles[other.key].endswith("m 32")


def test_without_makes_settings_equal_that_differ_in_the_named_keys() -> None:
    short, long = setting_of(make_config(epochs=10)), setting_of(make_config(epochs=20))
    assert without(short, ["epochs"]).key == without(long, ["epochs"]).key
    assert without(short, ["m"]).key != without(long, ["m"]).key
    left = without(short, ["epochs", "dataset.validation"])
    assert setting_titles([left]) == {left.key: "cifar10, wrn_28_10, basic, batch 256, m 32"}


def test_setting_of_another_base_optimizer_says_so() -> None:
    setting = setting_of(make_config(optimizer__base="adamw"))
    assert setting.base == "AdamW"
    assert next(iter(setting_titles([setting]).values())).endswith(", m 32, adamw")
