"""From a command line to a checked config. Imports no torch."""

import os
import pathlib
from collections.abc import Iterable
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from sam.config import hydra_adapter
from sam.config.check import check
from sam.config.overrides import refuse_mistakes
from sam.config.schema import EvaluateConfig, TrainConfig
from sam.system.errors import ConfigError

Config = TypeVar("Config", TrainConfig, EvaluateConfig)
CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
SCHEMAS: dict[str, type[Any]] = {"train_schema": TrainConfig, "evaluate_schema": EvaluateConfig}

for _name, _schema in SCHEMAS.items():
    ConfigStore.instance().store(_name, _schema)
hydra_adapter.prefer_our_launchers(path.name for path in (CONFIGS / "hydra" / "launcher").glob("*.yaml"))


def _by_dataset(values: dict[str, Any], *, _root_: DictConfig) -> Any:
    """Return the value of the chosen dataset: ${by_dataset:{cifar10:0.05,cifar100:0.1}} in a preset."""
    name = _root_.dataset.name
    if name not in values:
        raise ConfigError(
            f"dataset={name}: this experiment is for {' and '.join(values)}; choose one of these, or give "
            "the keys that it sets by dataset yourself"
        )
    return values[name]


def _gpus_per_run() -> int:
    """Return 1 if this process may use a GPU, else 0: ${gpus_per_run:} in the config of a launcher."""
    are_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return 1 if any(pathlib.Path("/dev").glob("nvidia[0-9]*")) and not are_hidden else 0


OmegaConf.register_new_resolver("by_dataset", _by_dataset)
OmegaConf.register_new_resolver("gpus_per_run", _gpus_per_run)
OmegaConf.register_new_resolver("expanded", os.path.expanduser)


# Made once, because making them takes half of the time of a check, and a sweep checks thousands of configs.
_EMPTY: dict[type[Any], Any] = {schema: OmegaConf.structured(schema) for schema in SCHEMAS.values()}


def checked(config: DictConfig, schema: type[Config]) -> Config:
    """Return a composed config as a typed object, after a check of ranges and combinations.

    Raises:
        ConfigError: If anything is not allowed; the message has one line for each fault.
    """
    # Plain containers, because a composed config loses its struct flag where a key was added with "+".
    plain = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    if missing := OmegaConf.missing_keys(plain):
        raise ConfigError("\n".join(f"{key}=???: no value is given" for key in sorted(missing)))
    typed = OmegaConf.to_object(OmegaConf.merge(_EMPTY[schema], plain))
    check(typed)
    return typed  # type: ignore[return-value]


def composed(overrides: Iterable[str]) -> TrainConfig:
    """Return the checked config for the overrides of one run of train.py.

    Raises:
        ConfigError: If anything in them is not allowed.
    """
    words = list(overrides)
    refuse_mistakes(words, TrainConfig)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return checked(compose("train", words), TrainConfig)
