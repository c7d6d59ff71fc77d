"""The identity and the directory of a run, from the keys that decide its numbers. Imports no torch."""

import hashlib
import json
import os
import pathlib
import re
from typing import Any

from sam.config.augmentation import draws_per_batch
from sam.config.schema import TrainConfig, config_items

PATHS = ("dataset.root", "dataset.label_file", "dataset.relabel_from", "model.weights")


def deciding_keys(config: TrainConfig) -> dict[str, Any]:
    """Return the keys that decide a run's numbers, without the seed and without keys at their defaults.

    - Defaults are left out, so that a new key does not change the identity of older runs.
    - Keys that only SAM reads are left out for SGD.
    - dataset.root counts only for image_folder, where nothing else distinguishes two datasets.
    - augmentation.auto_augment_draws counts only where it changes something.
    - Paths count as absolute paths. In dataset.relabel_from, the seed is left out if it is the run's own, so
      that all seeds of a bootstrapped condition have one identity.
    """
    defaults = {key: value for key, value, _ in config_items(TrainConfig())}
    chosen = {}
    for key, value, field in config_items(config):
        counts = field.metadata.get("science", True) and key != "seed"
        if key == "dataset.root":
            counts = config.dataset.reader == "image_folder"
        if key == "augmentation.auto_augment_draws":
            counts = draws_per_batch(config.augmentation, config.dataset)
        if key in PATHS and value not in (None, "hub"):
            value = os.path.abspath(os.path.expanduser(value))
        if key == "dataset.relabel_from" and value is not None:
            value = re.sub(rf"seed{config.seed}-", "seed*-", value)
        if field.metadata.get("sam_only") and config.optimizer.name != "sam":
            counts = False
        if counts and value != defaults[key]:
            chosen[key] = value
    return chosen


def identity(config: TrainConfig) -> str:
    """Return 8 hex digits that are the same for all seeds of one condition and differ between conditions."""
    text = json.dumps(deciding_keys(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def path_of(config: TrainConfig) -> pathlib.Path:
    """Return the run directory for a config."""
    optimizer = config.optimizer
    base = optimizer.base
    rule = base
    if optimizer.name == "sam":
        rule = "" if base == "sgd" else f"{base}-"
        rule += f"{optimizer.rule}-rho{optimizer.rho:g}" + ("-adaptive" if optimizer.adaptive else "")
    return pathlib.Path(
        os.path.expanduser(config.outputs),
        config.dataset.name,
        config.model.name,
        config.augmentation.name,
        rule,
        f"seed{config.seed}-{identity(config)}",
    )
