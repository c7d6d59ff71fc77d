"""Writes run directories in the format of the trainer, for the tests of their readers."""

import copy
import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

CONFIG: dict[str, Any] = {
    "dataset": {
        "name": "cifar10",
        "reader": "cifar10",
        "root": "data",
        "download": True,
        "num_train": None,
        "num_test": None,
        "label_noise": 0.0,
        "image_size": None,
        "num_classes": None,
    },
    "model": {"name": "wrn_28_10", "architecture": "wide_resnet", "depth": 28, "width": 10},
    "augmentation": {"name": "basic", "flip": True, "crop_padding": 4, "cutout_size": 0},
    "optimizer": {
        "name": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "clip_norm": 5.0,
        "rho": 0.05,
        "adaptive": False,
    },
    "runtime": {"device": "auto", "precision": "fp32", "threads": None, "compile": False},
    "epochs": 200,
    "batch_size": 256,
    "m": 32,
    "label_smoothing": 0.0,
    "seed": 0,
    "outputs": "outputs",
    "force": False,
}


def make_config(**changes: Any) -> dict[str, Any]:
    """Return a resolved config.

    Args:
        changes: New values of dotted keys, with two underscores for the dot.
    """
    config = copy.deepcopy(CONFIG)
    for name, value in changes.items():
        *groups, key = name.split("__")
        section = config
        for group in groups:
            section = section[group]
        section[key] = value
    return config


def identity_of(config: Mapping[str, Any]) -> str:
    """Return 8 hexadecimal digits that are equal for all seeds of one condition."""
    science = {name: config[name] for name in config if name not in ("seed", "runtime", "outputs")}
    return hashlib.sha256(json.dumps(science, sort_keys=True).encode()).hexdigest()[:8]


def make_result(config: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the result of a complete run.

    Args:
        config: The config of the run.
        changes: New values of keys of the result.
    """
    is_sam = config["optimizer"]["name"] == "sam"
    return {
        "status": "complete",
        "message": "",
        "identity": identity_of(config),
        "seed": config["seed"],
        "optimizer": config["optimizer"]["name"],
        "rho": config["optimizer"]["rho"] if is_sam else None,
        "epochs": config["epochs"],
        "test_error_pct": 3.5,
        "test_top5_error_pct": 0.1,
        "train_error_pct": 0.02,
        "seconds": 100.0,
        **changes,
    }


def write_run(
    root: Path,
    result: Mapping[str, Any] | None = None,
    metrics: Sequence[Mapping[str, float]] = (),
    **changes: Any,
) -> Path:
    """Write one run directory and return it.

    Args:
        root: Folder of all runs.
        result: New values of result.json; with the status "interrupted", no result.json is written.
        metrics: Rows of metrics.csv, all with the columns of the first.
        changes: Changes of the config, as for `make_config`.
    """
    config = make_config(**changes)
    optimizer = config["optimizer"]["name"]
    directory = root / f"{optimizer}_{identity_of(config)}" / f"seed{config['seed']}"
    directory.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(config), directory / "config.yaml")
    if metrics:
        with (directory / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(metrics[0]))
            writer.writeheader()
            writer.writerows(metrics)
    content = make_result(config, **(result or {}))
    if content["status"] != "interrupted":
        (directory / "result.json").write_text(json.dumps(content), encoding="utf-8")
    return directory


def falling_errors(num_epochs: int, last_pct: float) -> list[dict[str, float]]:
    """Return metrics whose test error falls to `last_pct`."""
    return [
        {
            "epoch": epoch,
            "test_error_pct": last_pct + 60 * (1 - epoch / num_epochs) ** 2,
            "train_error_pct": 50 * (1 - epoch / num_epochs) ** 2,
        }
        for epoch in range(1, num_epochs + 1)
    ]
