"""Writes run directories with the trainer's own writers, for the tests of their readers."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from sam.config.schema import TrainConfig
from sam.logs.csv_log import CsvLog
from sam.record.directory import write_config, write_result
from sam.record.identity import path_of
from sam.record.run_files import resolved
from sam.run import result as results
from tests.conftest import changed

# WRN-28-10 with SGD on CIFAR-10, as in the paper's Table 1.
CONDITION = {
    "dataset.name": "cifar10",
    "dataset.reader": "cifar10",
    "model.name": "wrn_28_10",
    "model.architecture": "wide_resnet",
    "model.depth": 28,
    "model.width": 10,
    "augmentation.name": "basic",
    "augmentation.flip": True,
    "augmentation.crop_padding": 4,
    "optimizer.name": "sgd",
    "epochs": 200,
    "batch_size": 256,
    "m": 32,
}
ENVIRONMENT = {
    "ended_at": "2026-11-25T20:13:42+00:00",
    "commit": "205bfb5f99a2",
    "versions": {"sam": "0.1.0", "python": "3.11.7", "torch": "2.14.1+cu130", "timm": "1.0.31"},
    "device": "NVIDIA H100 80GB HBM3",
    "threads": 1,
}


def typed_config(**changes: Any) -> TrainConfig:
    """Return the config of `CONDITION`.

    Args:
        changes: New values of dotted keys, with two underscores for the dot.
    """
    return changed({**CONDITION, **{name.replace("__", "."): value for name, value in changes.items()}})


def make_config(**changes: Any) -> dict[str, Any]:
    """Return `typed_config` as nested dictionaries, as a reader of config.yaml gets it."""
    return resolved(typed_config(**changes))


@contextmanager
def quick_writers() -> Iterator[None]:
    """Give every result the same environment, and do not wait for the disk."""
    with (
        patch.object(results, "environment", lambda device: ENVIRONMENT),
        patch.object(results, "peak_memory_mib", lambda device: 5120.4),
        patch.object(os, "fsync"),
    ):
        yield


def make_result(
    config: TrainConfig, rows: Sequence[Mapping[str, float]] = (), **changes: Any
) -> dict[str, Any]:
    """Return what result.json of an ended run holds.

    Args:
        config: The config of the run.
        rows: The rows of metrics.csv.
        changes: New values of keys of the result; the status "diverged" also changes its message.
    """
    usual = {"epoch": config.epochs, "step": 195 * config.epochs, "seconds": 0.5}
    usual |= {"test_error_pct": 3.5, "test_top5_error_pct": 0.1, "train_error_pct": 0.02}
    with quick_writers():
        result = results.make_result(
            config,
            [{**usual, **row} for row in rows or [{}]],
            complete=changes.get("status") != "diverged",
            num_parameters=36_500_000,
            num_passes=195.0 * config.epochs * (1 + (config.optimizer.name == "sam")),
            total_seconds=100.0,
            device=torch.device("cpu"),
            num_processes=1,
            graph=False,
        )
    return {**result, **changes}


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
        metrics: Rows of metrics.csv; without rows, no metrics.csv is written.
        changes: Changes of the config, as for `typed_config`.
    """
    config = typed_config(outputs=str(root), **changes)
    directory = path_of(config)
    directory.mkdir(parents=True)
    with quick_writers():
        write_config(directory, config, "python train.py")
        if metrics:
            CsvLog(directory / "metrics.csv").restart([dict(row) for row in metrics])
        if (result or {}).get("status") != "interrupted":
            write_result(directory, make_result(config, metrics, **(result or {})))
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
