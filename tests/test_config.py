"""Tests of sam/config.py, and of every file in configs/."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from sam.cli import checked
from sam.config import FILE_READERS, EvaluateConfig, TrainConfig, leaves
from tests.conftest import changed

CONFIGS = Path(__file__).parents[1] / "configs"
CHOICES = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in sorted(CONFIGS.iterdir())
    if folder.is_dir()
}


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
@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_configs_compose_for_every_optimizer_and_dataset(optimizer: str, dataset: str) -> None:
    config = composed(f"optimizer={optimizer}", f"dataset={dataset}")
    assert config.optimizer.name == optimizer
    assert config.dataset.name == dataset
    assert config.dataset.reader == ("image_folder" if dataset in ("imagenet", "birdsnap") else dataset)


@pytest.mark.parametrize(
    ("group", "choice"),
    [(group, choice) for group in ("model", "augmentation", "runtime") for choice in CHOICES[group]],
)
def test_configs_compose_for_every_other_choice(group: str, choice: str) -> None:
    needed = ["model.timm_name=resnet18"] if choice == "timm" else []
    files = ["dataset=imagenet"] if choice == "inception" else []
    config = composed(f"{group}={choice}", *needed, *files)
    assert getattr(getattr(config, group), "name", choice) == (
        "timm_resnet18" if choice == "timm" else choice
    )


@pytest.mark.parametrize("experiment", CHOICES["experiment"])
@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_configs_compose_for_every_optimizer_and_experiment(optimizer: str, experiment: str) -> None:
    # Two of them are for whichever dataset of files is asked for.
    is_open = experiment in ("finetune", "finetune_l2")
    overrides = [f"optimizer={optimizer}", f"experiment={experiment}"]
    config = composed(*overrides, *(["dataset=flowers102"] if is_open else []))
    assert config.optimizer.name == optimizer
    other = "food101" if config.dataset.reader in FILE_READERS else "cifar100"
    changed = composed(*overrides, f"dataset={other}")
    assert changed.dataset.name == other
    assert changed.dataset.label_noise == config.dataset.label_noise


@pytest.mark.parametrize("recipe", CHOICES["recipe"])
@pytest.mark.parametrize("model", ["resnet8", "wrn_28_10", "shake_shake_26_2x96d", "resnet50"])
def test_configs_compose_for_every_recipe_with_any_model(recipe: str, model: str) -> None:
    config = composed(f"recipe={recipe}", f"model={model}", "dataset=cifar10", "augmentation=cutout")
    assert config.optimizer.lr == 0.1
    assert config.augmentation.cutout_size == 16


def test_configs_of_recipes_differ_where_text_and_released_code_do() -> None:
    code, text, default = (composed(f"recipe={name}") for name in ("released_code", "text", "default"))

    def differing(one: TrainConfig, other: TrainConfig) -> dict[str, tuple[object, object]]:
        pairs = zip(leaves(one), leaves(other), strict=True)
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
    assert set(CHOICES) == {
        "dataset",
        "experiment",
        "optimizer",
        "model",
        "augmentation",
        "recipe",
        "runtime",
    }
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
