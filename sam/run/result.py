"""The contents of result.json: the numbers of an ended run, their cost and origin, and its config."""

from collections.abc import Sequence
from typing import Any

import torch

from sam.config.schema import TrainConfig
from sam.record.identity import identity
from sam.record.run_files import resolved_for_json
from sam.system.machine import environment, peak_memory_mib

LAST_EPOCH = (
    "test_error_pct",
    "test_top5_error_pct",
    "test_loss",
    "train_error_pct",
    "train_loss",
    "train_clean_error_pct",  # against the true labels, if the run was trained on changed labels
)


def make_result(
    config: TrainConfig,
    rows: Sequence[dict[str, float]],
    *,
    complete: bool,
    num_parameters: int,
    num_passes: float,
    total_seconds: float,
    device: torch.device,
    num_processes: int,
    graph: bool,
) -> dict[str, Any]:
    """Return the contents of result.json.

    Args:
        config: The run's config.
        rows: The rows of metrics.csv, at least one.
        complete: False if the run diverged.
        num_parameters: Number of parameters of the network.
        num_passes: Forward-backward passes over a batch: two for an update of SAM, less for a cheaper rule.
        total_seconds: Time of training and evaluation, including earlier processes that were interrupted.
        device: The device of the run.
        num_processes: Number of processes that shared a batch.
        graph: Whether updates were replayed from CUDA graphs.
    """
    last = rows[-1]
    best = min(rows, key=lambda row: row["test_error_pct"])
    message = "" if complete else f"loss is not finite after step {last['step']}; try a lower lr or rho"
    return {
        "status": "complete" if complete else "diverged",
        "message": message,
        "identity": identity(config),
        "seed": config.seed,
        "dataset": config.dataset.name,
        "model": config.model.name,
        "augmentation": config.augmentation.name,
        "optimizer": config.optimizer.name,
        "rho": config.optimizer.rho if config.optimizer.name == "sam" else None,
        "epochs": config.epochs,
        # None if it was not measured.
        **{key: last.get(key) for key in LAST_EPOCH},
        # For information only: an epoch chosen on the test set gives an error that is too low.
        "best": {"epoch": best["epoch"], "test_error_pct": best["test_error_pct"]},
        "num_parameters": num_parameters,
        "steps": last["step"],
        "forward_backward_passes": round(num_passes, 2),
        "seconds": round(total_seconds, 2),
        "images_per_second": _images_per_second(rows),
        # An analysis during training may have taken more memory than the training.
        "peak_memory_mib": round(peak_memory_mib(device), 1) if config.analysis.name == "none" else None,
        **_provenance(config, device, num_processes, graph),
    }


def _images_per_second(rows: Sequence[dict[str, float]]) -> float | None:
    """Return the speed of the training; None if there was none."""
    seconds = sum(row["seconds"] for row in rows)
    num_images = sum(row.get("images_per_second", 0.0) * row["seconds"] for row in rows)
    return round(num_images / seconds, 1) if seconds else None


def _provenance(config: TrainConfig, device: torch.device, num_processes: int, graph: bool) -> dict[str, Any]:
    """Return the origin of the numbers: time, versions, device and settings; the whole config comes last."""
    return {
        **environment(device),
        "precision": config.runtime.precision,
        "compile": config.runtime.compile,
        "graph": graph,
        "deterministic": config.runtime.deterministic,
        "parallel": config.runtime.parallel if num_processes > 1 else None,
        "processes": num_processes,
        "config": resolved_for_json(config),
    }
