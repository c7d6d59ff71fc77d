"""Tests of sam/config.py, and of every file in configs/.

Longer than 300 lines, since a third of it is the table of all faults with their full messages.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from sam.cli import checked
from sam.config import ConfigError, EvaluateConfig, TrainConfig, check, leaves
from tests.conftest import changed

CONFIGS = Path(__file__).parents[1] / "configs"
CHOICES = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in sorted(CONFIGS.iterdir())
    if folder.is_dir()
}

NAME = "a name of letters, digits, '_', '-' and '.', since it becomes part of a path"
READERS = "one of fashion_mnist_mini, fashion_mnist, cifar10, cifar100, image_folder, synthetic"
# Key, a value that is not allowed, what is said to be allowed.
FAULTS: list[tuple[str, Any, str]] = [
    ("dataset.name", "a/b", NAME),
    ("dataset.name", "", NAME),
    ("dataset.name", "..", NAME),
    ("dataset.name", "-x", NAME),
    ("dataset.name", "cats\n", NAME),
    ("dataset.reader", "mnist", READERS),
    ("dataset.num_train", 0, "a number >= 1"),
    ("dataset.num_test", 0, "a number >= 1"),
    ("dataset.label_noise", -0.1, "a number >= 0 and < 1"),
    ("dataset.label_noise", 1.0, "a number >= 0 and < 1"),
    ("dataset.label_noise", float("nan"), "a finite number"),
    ("dataset.image_size", 7, "a number >= 8 and <= 1024"),
    ("dataset.image_size", 1025, "a number >= 8 and <= 1024"),
    ("dataset.num_classes", 1, "a number >= 2"),
    ("model.name", "a b", NAME),
    (
        "model.architecture",
        "vgg",
        "one of cifar_resnet, wide_cifar_resnet, wide_resnet, shake_shake, pyramidnet",
    ),
    ("model.depth", 2, "a number >= 8 and <= 2000"),
    ("model.width", 0, "a number >= 1"),
    ("model.shortcut", "none", "one of pool, conv"),
    ("model.alpha", 0, "a number >= 1"),
    ("augmentation.name", "a:b", NAME),
    ("augmentation.crop_padding", -1, "a number >= 0"),
    ("augmentation.padding", "constant", "one of reflect, zero"),
    ("augmentation.cutout_size", -1, "a number >= 0"),
    ("optimizer.name", "adam", "one of sgd, sam"),
    ("optimizer.lr", 0.0, "a number > 0"),
    ("optimizer.momentum", 1.0, "a number >= 0 and < 1"),
    ("optimizer.momentum", -0.1, "a number >= 0 and < 1"),
    ("optimizer.weight_decay", -1e-9, "a number >= 0"),
    ("optimizer.clip_norm", 0.0, "a number > 0"),
    ("optimizer.rho", -0.05, "a number >= 0"),
    ("optimizer.rho", float("inf"), "a finite number"),
    ("runtime.precision", "fp8", "one of fp32, tf32, bf16, fp16"),
    ("runtime.threads", 0, "a number >= 1 and <= 1024"),
    ("runtime.checkpoint_minutes", 0.0, "a number > 0"),
    ("epochs", 0, "a number >= 1"),
    ("batch_size", 0, "a number >= 1"),
    ("m", 0, "a number >= 1"),
    ("label_smoothing", -0.1, "a number >= 0 and < 1"),
    ("label_smoothing", 1.0, "a number >= 0 and < 1"),
    ("seed", -1, "a number >= 0 and <= 2147483647"),
    ("seed", 2**31, "a number >= 0 and <= 2147483647"),
]
# The outermost values that are allowed.
ALLOWED: list[tuple[str, Any]] = [
    ("dataset.name", "_CIFAR-10.v2"),
    ("dataset.num_train", 128),
    ("dataset.num_test", 1),
    ("dataset.label_noise", 0.0),
    ("dataset.label_noise", 0.999),
    ("model.width", 1),
    ("augmentation.padding", "zero"),
    ("augmentation.crop_padding", 0),
    ("augmentation.cutout_size", 0),
    ("optimizer.name", "sgd"),
    ("optimizer.lr", 1e-12),
    ("optimizer.weight_decay", 0.0),
    ("optimizer.clip_norm", 1e-12),
    ("optimizer.clip_norm", None),
    ("optimizer.rho", 0.0),
    ("optimizer.momentum", 0.999),
    ("runtime.precision", "bf16"),
    ("runtime.threads", 1),
    ("runtime.checkpoint_minutes", 1e-3),
    ("epochs", 1),
    ("batch_size", 1),
    ("m", 1),
    ("m", 128),
    ("label_smoothing", 0.0),
    ("seed", 0),
    ("seed", 2**31 - 1),
]


def faults_of(config: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(config)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(("key", "value", "allowed"), FAULTS)
def test_check_tells_key_value_and_what_is_allowed(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?m)^{re.escape(f'{key}={value}: allowed is {allowed}')}$"):
        check(changed({key: value}))


@pytest.mark.parametrize(("key", "value"), ALLOWED)
def test_check_allows_the_outermost_values(key: str, value: Any) -> None:
    check(changed({key: value}))


@pytest.mark.parametrize("size", [8, 1024])
def test_check_allows_the_outermost_image_sizes(size: int) -> None:
    sizes = {"dataset.num_train": 128, "dataset.num_test": 1, "dataset.num_classes": 2}
    check(changed({"dataset.reader": "synthetic", "dataset.image_size": size, **sizes}))


def test_check_tests_above_cover_every_key_with_a_rule() -> None:
    ruled = {key for key, _, field in leaves(TrainConfig()) if set(field.metadata) - {"science", "sam_only"}}
    assert {key for key, _, _ in FAULTS} == ruled


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"m": 48}, "m=48 does not divide batch_size=128; choose a divisor or m=null"),
        ({"m": 256}, "m=256 does not divide batch_size=128; choose a divisor or m=null"),
        ({"model.depth": 28}, "model.depth=28: a cifar_resnet has depth 6n+2, for example 20"),
        (
            {"model.architecture": "wide_resnet", "model.depth": 20},
            "model.depth=20: a wide_resnet has depth 6n+4, for example 28",
        ),
        (
            {"optimizer.momentum": 0.0},
            "optimizer.nesterov=true needs optimizer.momentum > 0; set optimizer.nesterov=false",
        ),
        (
            {"runtime.precision": "tf32", "runtime.device": "cpu"},
            "runtime.precision=tf32 needs a GPU, but runtime.device=cpu; use fp32",
        ),
        (
            {"runtime.precision": "tf32", "runtime.device": "mps"},
            "runtime.precision=tf32 needs a GPU, but runtime.device=mps; use fp32",
        ),
        (
            {"dataset.num_train": 127},
            "dataset.num_train=127 fills no batch of batch_size=128; lower batch_size",
        ),
        ({"dataset.image_size": 32}, "dataset.image_size is fixed for fashion_mnist_mini; leave it null"),
        (
            {"dataset.reader": "cifar10", "dataset.num_classes": 10},
            "dataset.num_classes is known for cifar10; leave it null",
        ),
        (
            {"dataset.reader": "image_folder", "dataset.image_size": 8, "dataset.num_classes": 10},
            "dataset.num_classes is known for image_folder; leave it null",
        ),
        (
            {"model.architecture": "pyramidnet", "model.depth": 12},
            "model.depth=12: a pyramidnet has depth 9n+2, for example 272",
        ),
        (
            {"model.architecture": "shake_shake", "model.width": 3},
            "model.width=3: a shake_shake has an even width, for example 96",
        ),
        ({"model.alpha": 84}, "model.alpha is nothing that a cifar_resnet reads; leave it out"),
        ({"outputs": ""}, "outputs is empty; name a folder"),
        (
            {"dataset.reader": "image_folder"},
            "dataset.image_size=null: image_folder needs a number here",
        ),
        ({"dataset.root": ""}, "dataset.root is empty; name a folder"),
    ],
)
def test_check_tells_of_keys_that_clash(changes: dict[str, Any], message: str) -> None:
    assert faults_of(changed(changes)) == [message]


@pytest.mark.parametrize(
    "changes",
    [
        {"m": 64},
        {"model.architecture": "wide_resnet", "model.depth": 28},
        {"optimizer.momentum": 0.0, "optimizer.nesterov": False},
        {"runtime.precision": "tf32", "runtime.device": "auto"},
        {"runtime.precision": "tf32", "runtime.device": "cuda:1"},
        {"runtime.precision": "bf16", "runtime.device": "cpu"},
        {"dataset.reader": "image_folder", "dataset.image_size": 64},
    ],
)
def test_check_allows_keys_that_go_together(changes: dict[str, Any]) -> None:
    check(changed(changes))


def test_check_shows_all_faults_together() -> None:
    config = changed({"optimizer.lr": -1.0, "seed": -5, "m": 48, "dataset.root": ""})
    assert faults_of(config) == [
        "optimizer.lr=-1.0: allowed is a number > 0",
        "seed=-5: allowed is a number >= 0 and <= 2147483647",
        "m=48 does not divide batch_size=128; choose a divisor or m=null",
        "dataset.root is empty; name a folder",
    ]


def test_check_of_evaluate_config_knows_its_splits() -> None:
    check(EvaluateConfig(run="somewhere", split="train"))
    faults = faults_of(EvaluateConfig(run="somewhere", split="validation"))
    assert faults == ["split=validation: allowed is one of test, train"]


def test_leaves_yields_dotted_keys_and_values_in_order() -> None:
    entries = [(key, value) for key, value, _ in leaves(changed({"optimizer.rho": 0.7}))]
    assert entries[0] == ("dataset.name", "fashion_mnist_mini")
    assert ("optimizer.rho", 0.7) in entries
    assert entries[-1] == ("force", False)
    assert len({key for key, _ in entries}) == len(entries)


def composed(*overrides: str) -> TrainConfig:
    """Return the typed, checked config of a command line."""
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        return checked(compose("train", overrides=list(overrides)), TrainConfig)


@pytest.mark.parametrize("dataset", CHOICES["dataset"])
@pytest.mark.parametrize("experiment", [None, *CHOICES["experiment"]])
@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_configs_compose_for_every_optimizer_experiment_and_dataset(
    optimizer: str, experiment: str | None, dataset: str
) -> None:
    overrides = [f"optimizer={optimizer}", f"dataset={dataset}"]
    config = composed(*overrides, *([f"experiment={experiment}"] if experiment else []))
    assert config.optimizer.name == optimizer
    assert config.dataset.name == config.dataset.reader == dataset


@pytest.mark.parametrize(
    ("group", "choice"),
    [(group, choice) for group in ("model", "augmentation", "runtime") for choice in CHOICES[group]],
)
def test_configs_compose_for_every_other_choice(group: str, choice: str) -> None:
    config = composed(f"{group}={choice}")
    assert getattr(getattr(config, group), "name", choice) == choice


def test_configs_tests_above_cover_every_group() -> None:
    assert set(CHOICES) == {"dataset", "experiment", "optimizer", "model", "augmentation", "runtime"}
    assert all(CHOICES.values())


# Epochs, batch, m, lr, weight decay and rho of the paper for WRN-28-10 (Table 6) and Fashion-MNIST (Table 7).
@pytest.mark.parametrize(
    ("dataset", "protocol"),
    [
        ("cifar10", (200, 256, 32, 0.1, 5e-4, 0.05)),
        ("cifar100", (200, 256, 32, 0.1, 5e-4, 0.1)),
        ("fashion_mnist", (200, 256, 32, 0.1, 5e-4, 0.05)),
    ],
)
@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_configs_bring_the_protocol_of_the_paper(
    dataset: str, protocol: tuple[float, ...], optimizer: str
) -> None:
    config = composed(f"dataset={dataset}", f"optimizer={optimizer}", "augmentation=cutout")
    chosen = config.optimizer
    assert (
        config.epochs,
        config.batch_size,
        config.m,
        chosen.lr,
        chosen.weight_decay,
        chosen.rho,
    ) == protocol
    assert (chosen.momentum, chosen.nesterov, chosen.clip_norm, chosen.adaptive) == (0.9, True, 5.0, False)
    assert config.augmentation.flip
    assert (config.augmentation.crop_padding, config.augmentation.cutout_size) == (4, 16)


@pytest.mark.parametrize(
    ("model", "architecture", "depth", "width"),
    [
        ("resnet8", "cifar_resnet", 8, 16),
        ("resnet20", "cifar_resnet", 20, 16),
        ("resnet32", "cifar_resnet", 32, 16),
        ("wrn_16_4", "wide_resnet", 16, 4),
        ("wrn_28_10", "wide_resnet", 28, 10),
        ("wrn_40_2", "wide_resnet", 40, 2),
    ],
)
def test_configs_name_models_after_depth_and_width(
    model: str, architecture: str, depth: int, width: int
) -> None:
    config = composed(f"model={model}").model
    assert (config.architecture, config.depth, config.width) == (architecture, depth, width)


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


def test_configs_of_evaluate_compose() -> None:
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        config = checked(compose("evaluate", overrides=["run=somewhere", "split=train"]), EvaluateConfig)
    assert config == EvaluateConfig(run="somewhere", split="train")
