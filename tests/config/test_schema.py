"""Tests of sam/config/schema.py, and of every file in configs/ except experiments (test_experiments.py)."""

from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from sam.build.network import make_network
from sam.config.analysis import AnalysisConfig
from sam.config.compose import checked
from sam.config.runtime import RuntimeConfig
from sam.config.schema import EvaluateConfig, TrainConfig, config_items
from sam.data.images import Dataset, Images
from tests.conftest import changed

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CHOICES = {
    folder.name: sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )
    for folder in sorted(CONFIGS.iterdir())
    if folder.is_dir()
}


def test_leaves_yields_dotted_keys_and_values_in_order() -> None:
    entries = [(key, value) for key, value, _ in config_items(changed({"optimizer.rho": 0.7}))]
    assert entries[0] == ("dataset.name", "fashion_mnist_mini")
    assert ("optimizer.rho", 0.7) in entries
    assert entries[-1] == ("force", False)
    assert len({key for key, _ in entries}) == len(entries)


@cache
def composed(*overrides: str) -> TrainConfig:
    """Return the typed, checked config of a command line; composing takes most of the time of this file."""
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        return checked(compose("train", overrides=list(overrides)), TrainConfig)


@pytest.mark.parametrize("dataset", CHOICES["dataset"])
@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_configs_compose_for_every_optimizer_and_dataset(optimizer: str, dataset: str) -> None:
    config = composed(f"optimizer={optimizer}", f"dataset={dataset}")
    assert config.optimizer.name == optimizer
    assert config.dataset.name == dataset
    assert config.dataset.reader == ("image_folder" if dataset in ("imagenet", "birdsnap") else dataset)


def test_configs_of_a_runtime_say_what_differs_from_the_default() -> None:
    assert CHOICES["runtime"] == ["ddp", "gpu", "single"]
    assert composed("runtime=single").runtime == RuntimeConfig()
    assert composed("runtime=ddp").runtime == RuntimeConfig(processes=2)
    assert composed("runtime=gpu").runtime == RuntimeConfig(device="cuda", precision="bf16")
    eight = composed("runtime=gpu", "runtime.processes=8", "m=16").runtime
    assert eight == RuntimeConfig(device="cuda", precision="bf16", processes=8)


@pytest.mark.parametrize("recipe", CHOICES["recipe"])
@pytest.mark.parametrize("model", ["resnet8", "wrn_28_10", "shake_shake_26_2x96d", "resnet50"])
def test_configs_compose_for_every_recipe_with_any_model(recipe: str, model: str) -> None:
    config = composed(f"recipe={recipe}", f"model={model}", "dataset=cifar10", "augmentation=cutout")
    assert config.optimizer.lr == 0.1
    assert config.augmentation.cutout_size == 16


def test_configs_of_recipes_differ_where_text_and_released_code_do() -> None:
    code, text, default = (composed(f"recipe={name}") for name in ("released_code", "text", "default"))

    def differing(one: TrainConfig, other: TrainConfig) -> dict[str, tuple[object, object]]:
        pairs = zip(config_items(one), config_items(other), strict=True)
        return {key: (value, twin) for (key, value, _), (_, twin, _) in pairs if value != twin}

    assert differing(code, text) == {
        "model.shortcut": ("pool", "conv"),
        "model.init_seed": (0, None),
        "augmentation.padding": ("reflect", "zero"),
        "augmentation.cutout_scope": ("batch", "image"),
        "optimizer.nesterov": (True, False),
        "optimizer.clip_norm": (5.0, None),
        "optimizer.weight_decay_in": ("loss", "optimizer"),
        "optimizer.true_gradient": (True, False),
        "optimizer.replay": (True, False),
    }
    assert differing(code, default) == {
        "model.init_seed": (0, None),
        "augmentation.cutout_scope": ("batch", "image"),
        "optimizer.weight_decay_in": ("loss", "optimizer"),
    }
    assert default == composed()


def test_configs_tests_above_cover_every_group() -> None:
    assert set(CHOICES) - {"hydra"} == {
        "dataset",
        "experiment",
        "optimizer",
        "model",
        "augmentation",
        "recipe",
        "runtime",
        "analysis",
    }
    assert all(CHOICES.values())


# Epochs, batch, m, lr, weight decay, rho and label smoothing of the paper: WRN-28-10 (Table 6), SVHN and
# Fashion-MNIST (Table 7; epochs are not printed), ImageNet, EfficientNet-b7 (Table 3; 5,000 steps).
FINETUNED = (1024, 16, 0.016, 1e-5, 0.05, 0.0)
PROTOCOLS = {
    "cifar10": (200, 256, 32, 0.1, 5e-4, 0.05, 0.0),
    "cifar100": (200, 256, 32, 0.1, 5e-4, 0.1, 0.0),
    "fashion_mnist": (200, 256, 32, 0.1, 5e-4, 0.05, 0.0),
    "svhn": (200, 256, 32, 0.01, 5e-4, 0.01, 0.0),
    "imagenet": (100, 4096, 128, 1.0, 1e-4, 0.05, 0.1),
    "birdsnap": (27, *FINETUNED),
    "fgvc_aircraft": (20, *FINETUNED),
    "flowers102": (20, *FINETUNED),
    "food101": (34, *FINETUNED),
    "oxford_iiit_pet": (20, *FINETUNED),
    "stanford_cars": (20, *FINETUNED),
    # Not in the paper.
    "fashion_mnist_mini": (20, 128, None, 0.1, 5e-4, 0.2, 0.0),
    "image_folder": (50, 128, None, 0.1, 5e-4, 0.05, 0.0),
    "synthetic": (2, 128, None, 0.1, 5e-4, 0.05, 0.0),
}


def protocol(config: TrainConfig) -> tuple[object, ...]:
    chosen = config.optimizer
    assert (chosen.momentum, chosen.nesterov, chosen.adaptive) == (0.9, True, False)
    return (
        config.epochs,
        config.batch_size,
        config.m,
        chosen.lr,
        chosen.weight_decay,
        chosen.rho,
        config.label_smoothing,
        chosen.clip_norm,
    )


@pytest.mark.parametrize("dataset", CHOICES["dataset"])
@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_configs_of_datasets_bring_the_protocol_of_the_paper(dataset: str, optimizer: str) -> None:
    config = composed(f"optimizer={optimizer}", f"dataset={dataset}")
    assert protocol(config) == (*PROTOCOLS[dataset], 5.0)


# Flip, padding of the crop, cutout, AutoAugment, its draws, inception crop, mixup.
AUGMENTATIONS = {
    "none": (False, 0, 0, "none", "image", False, 0),
    "basic": (True, 4, 0, "none", "image", False, 0),
    "cutout": (True, 4, 16, "none", "image", False, 0),
    "autoaugment": (True, 4, 0, "cifar10", "batch", False, 0),
    "autoaugment_cutout": (True, 4, 16, "cifar10", "batch", False, 0),
    "autoaugment_released_code": (True, 4, 0, "cifar10_released_code", "batch", False, 0),
    "autoaugment_svhn": (False, 0, 16, "svhn", "batch", False, 0),
    "inception": (True, 0, 0, "none", "image", True, 0),
    "mixup": (True, 4, 0, "none", "image", False, 1),
}


@pytest.mark.parametrize("augmentation", CHOICES["augmentation"])
def test_configs_of_augmentations_are_those_of_the_paper(augmentation: str) -> None:
    files = ["dataset=imagenet"] if augmentation == "inception" else []
    chosen = composed(f"augmentation={augmentation}", *files).augmentation
    assert chosen.name == augmentation
    assert (
        chosen.flip,
        chosen.crop_padding,
        chosen.cutout_size,
        chosen.auto_augment,
        chosen.auto_augment_draws,
        chosen.inception_crop,
        chosen.mixup_alpha,
    ) == AUGMENTATIONS[augmentation]


# Millions of parameters, for RGB images of 10 classes, and the options that tell a network from its like.
MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "efficientnet_b7": ("63.81", {"timm_name": "tf_efficientnet_b7.ra_in1k"}),
    "efficientnet_l2": ("474.86", {"timm_name": "tf_efficientnet_l2.ns_jft_in1k_475"}),
    "efficientnet_lite0": ("3.38", {"timm_name": "tf_efficientnet_lite0"}),
    "pyramidnet_110": ("10.67", {"depth": 110, "alpha": 200, "shakedrop": False}),
    "pyramidnet_110_shakedrop": ("10.67", {"depth": 110, "alpha": 200, "shakedrop": True}),
    "pyramidnet_272": ("26.21", {"depth": 272, "alpha": 200, "shakedrop": False}),
    "pyramidnet_272_shakedrop": ("26.21", {"depth": 272, "alpha": 200, "shakedrop": True}),
    "resnet101": ("42.52", {"timm_name": "resnet101"}),
    "resnet152": ("58.16", {"timm_name": "resnet152"}),
    "resnet20": ("0.27", {"depth": 20, "width": 16, "skip": True}),
    "resnet32": ("0.46", {"depth": 32, "width": 16, "skip": True}),
    "resnet32_wide": ("29.44", {"architecture": "wide_cifar_resnet", "depth": 32, "width": 64}),
    "resnet44": ("0.66", {"depth": 44, "width": 16, "skip": True}),
    "resnet50": ("23.53", {"timm_name": "resnet50"}),
    "resnet56": ("0.85", {"depth": 56, "width": 16, "skip": True}),
    "resnet56_noskip": ("0.85", {"depth": 56, "width": 16, "skip": False}),
    "resnet8": ("0.08", {"depth": 8, "width": 16, "skip": True}),
    "shake_shake_26_2x96d": ("26.19", {"architecture": "shake_shake", "depth": 26, "width": 96}),
    "timm model.timm_name=resnet18": ("11.18", {"name": "timm_resnet18", "timm_name": "resnet18"}),
    "wrn_16_2": ("0.68", {"depth": 16, "width": 2, "batch_norm": True}),
    "wrn_16_4": ("2.71", {"depth": 16, "width": 4, "batch_norm": True}),
    "wrn_16_8": ("10.80", {"depth": 16, "width": 8, "batch_norm": True}),
    "wrn_28_10": ("36.22", {"depth": 28, "width": 10, "batch_norm": True}),
    "wrn_40_10": ("55.58", {"depth": 40, "width": 10, "batch_norm": True}),
    "wrn_40_10_nobn": ("55.57", {"depth": 40, "width": 10, "batch_norm": False}),
    "wrn_40_2": ("2.23", {"depth": 40, "width": 2, "batch_norm": True}),
}


@pytest.mark.parametrize("model", MODELS)
def test_configs_of_models_are_the_networks_of_their_names(model: str) -> None:
    num_parameters, options = MODELS[model]
    config = composed(*f"model={model}".split()).model
    expected = {"name": model, **options}
    assert {option: getattr(config, option) for option in expected} == expected
    pictures = Images(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.long))
    data = Dataset(pictures, pictures, tuple("0123456789"), (0.5,) * 3, (0.2,) * 3)
    where = torch.device("meta")
    with where:  # shapes without numbers: nothing is drawn
        network = make_network(config, data, where)
    assert f"{sum(weight.numel() for weight in network.parameters()) / 1e6:.2f}" == num_parameters


def test_configs_tests_above_cover_every_model() -> None:
    assert sorted(name.split()[0] for name in MODELS) == CHOICES["model"]


@pytest.mark.parametrize("order", [1, -1])
def test_configs_let_the_command_line_win_over_groups(order: int) -> None:
    overrides = ["dataset=cifar100", "experiment=quickstart", "optimizer.rho=0.3", "dataset.label_noise=0.2"]
    config = composed(*overrides[::order])
    assert config.dataset.reader == "cifar100"
    assert config.optimizer.rho == 0.3
    assert config.dataset.label_noise == 0.2


@pytest.mark.parametrize("dataset", CHOICES["dataset"])
def test_configs_let_an_experiment_win_over_the_dataset(dataset: str) -> None:
    assert composed(f"dataset={dataset}").dataset.label_noise == 0.0
    assert composed("experiment=quickstart", f"dataset={dataset}").dataset.label_noise == 0.4


@pytest.mark.parametrize("analysis", CHOICES["analysis"])
def test_configs_of_an_analysis_choose_it_and_an_experiment_wins_over_them(analysis: str) -> None:
    config = composed(f"analysis={analysis}", "analysis.m=[2,8]", "analysis.every=3")
    assert config.analysis == AnalysisConfig(name=analysis, m=[2, 8], every=3)
    assert composed("experiment=quickstart", f"analysis={analysis}").analysis.name == analysis


def test_configs_of_evaluate_compose() -> None:
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        config = checked(compose("evaluate", overrides=["run=somewhere", "split=train"]), EvaluateConfig)
    assert config == EvaluateConfig(run="somewhere", split="train")
