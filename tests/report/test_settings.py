"""Tests of sam/report/settings.py."""

from typing import Any

import pytest

from sam.report.settings import setting_of, setting_titles
from tests.report.run_directories import make_config


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"outputs": "elsewhere"},
        {"force": True},
        {"dataset__root": "/elsewhere"},
        {"dataset__download": False},
        {"runtime__device": "cuda"},
        {"runtime__later_key": 3},
        {"optimizer__name": "sam"},
        {"optimizer__rho": 0.2},
        {"optimizer__adaptive": True},
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
        {"later_key": "on"},
    ],
)
def test_setting_depends_on(change: dict[str, Any]) -> None:
    assert setting_of(make_config(**change)).key != setting_of(make_config()).key


def test_setting_with_null_equals_setting_without_the_key() -> None:
    assert setting_of(make_config(later_key=None)) == setting_of(make_config())


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
        "optimizer.nesterov=true, optimizer.weight_decay=0.0005, runtime.precision=fp32"
    )


def test_setting_title_names_the_condition() -> None:
    setting = setting_of(make_config())
    titles = setting_titles([setting, setting])
    assert titles == {setting.key: "cifar10, wrn_28_10, basic, epochs 200, batch 256, m 32"}


def test_setting_title_tells_label_noise_and_subsets() -> None:
    setting = setting_of(make_config(dataset__label_noise=0.2, dataset__num_train=500, dataset__num_test=100))
    (title,) = setting_titles([setting]).values()
    assert title.endswith("label noise 0.2, 500 training images, 100 test images")


def test_setting_titles_add_what_tells_namesakes_apart() -> None:
    plain = setting_of(make_config())
    smooth = setting_of(make_config(label_smoothing=0.1))
    other = setting_of(make_config(dataset__name="cifar100", label_smoothing=0.1))
    titles = setting_titles([plain, smooth, other])
    assert titles[plain.key].endswith("m 32, label_smoothing=0")
    assert titles[smooth.key].endswith("m 32, label_smoothing=0.1")
    assert titles[other.key].endswith("m 32")
