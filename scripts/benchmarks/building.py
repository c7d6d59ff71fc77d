"""Builds configs and the parts of a run without Hydra, which a machine with a GPU may not have."""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import torch
import yaml

from sam.build.network import compiled, make_network
from sam.build.resolved import Resolved
from sam.build.update import make_update
from sam.config.check import check
from sam.config.schema import GROUPS, TrainConfig
from sam.data.images import Dataset
from sam.training.update import Update

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


def config_of(changes: Mapping[str, Any]) -> TrainConfig:
    """Return a checked config: the schema's defaults with changes.

    Args:
        changes: Values by key. The key is dotted, or a group such as model. The value of a group is the name
            of a file in configs/ without a defaults list. Later changes win.

    Raises:
        ConfigError: If the values are not allowed.
    """
    config = TrainConfig()
    for key, value in changes.items():
        if key not in GROUPS:
            _set(config, {key: value})
            continue
        text = (CONFIGS / key / f"{value}.yaml").read_text(encoding="utf-8")
        is_global = text.startswith("# @package _global_")
        _set(config if is_global else getattr(config, key), yaml.safe_load(text))
    check(config)
    return config


def _set(section: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        first, _, rest = key.partition(".")
        assert hasattr(section, first), key
        if rest:
            _set(getattr(section, first), {rest: value})
        elif dataclasses.is_dataclass(getattr(section, first)):
            _set(getattr(section, first), value)
        else:
            setattr(section, first, value)


def update_of(config: TrainConfig, data: Dataset, resolved: Resolved) -> Update:
    """Build the network and its update from a config."""
    torch.manual_seed(config.seed)
    network = make_network(config.model, data, resolved.device)
    return make_update(
        config.optimizer,
        network,
        compiled(network, config.runtime),
        resolved,
        num_steps=sys.maxsize,
        label_smoothing=config.label_smoothing,
    )
