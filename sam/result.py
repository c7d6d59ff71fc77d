"""What result.json says of an ended run: its numbers, what they cost, and where they come from."""

import datetime
import importlib.metadata
import pathlib
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torchvision

import sam
from sam.config import TrainConfig
from sam.run_directory import identity

LAST_EPOCH = (
    "test_error_pct",
    "test_top5_error_pct",
    "test_loss",
    "train_error_pct",
    "train_loss",
    "train_clean_error_pct",  # against the true labels, where others were trained on
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
) -> dict[str, Any]:
    """Return what result.json holds.

    Args:
        config: Of the run.
        rows: Of metrics.csv, at least one.
        complete: False if the run diverged.
        num_parameters: Of the network.
        num_passes: Forward-backward passes over a batch: two for an update of SAM, less for a cheaper rule.
        total_seconds: Of training and evaluation, over all processes that worked on the run in turn.
        device: Where it ran.
        num_processes: How many shared a batch.
    """
    last = rows[-1]
    best = min(rows, key=lambda row: row["test_error_pct"])
    train_seconds = sum(row["seconds"] for row in rows)
    num_images = sum(row.get("images_per_second", 0.0) * row["seconds"] for row in rows)
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
        # None for what was not measured.
        **{key: last.get(key) for key in LAST_EPOCH},
        # A note only: choosing the epoch on the test set makes this too low.
        "best": {"epoch": best["epoch"], "test_error_pct": best["test_error_pct"]},
        "num_parameters": num_parameters,
        "steps": last["step"],
        "forward_backward_passes": round(num_passes, 2),
        "seconds": round(total_seconds, 2),
        "images_per_second": round(num_images / train_seconds, 1) if train_seconds else None,
        # An analysis on the way may have taken more than training did.
        "peak_memory_mib": round(peak_memory_mib(device), 1) if config.analysis.name == "none" else None,
        **_provenance(config, device, num_processes),
    }


def _provenance(config: TrainConfig, device: torch.device, num_processes: int) -> dict[str, Any]:
    """Return when and from what the numbers came."""
    return {
        **environment(device),
        "precision": config.runtime.precision,
        "compile": config.runtime.compile,
        "parallel": config.runtime.parallel if num_processes > 1 else None,
        "processes": num_processes,
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Return the time, the code and what it runs on, for whatever is measured now."""
    return {
        "ended_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": {
            "sam": sam.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": importlib.metadata.version("timm"),
            "pillow": importlib.metadata.version("pillow"),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """Return the git commit of this code, with "+changes" if files differ from it; None outside git."""
    git: Callable[..., str] = partial(
        subprocess.check_output,
        cwd=pathlib.Path(__file__).parent,
        text=True,
        stderr=subprocess.DEVNULL,
        timeout=10,
    )
    try:
        number = git(["git", "rev-parse", "--short=12", "HEAD"]).strip()
        changed = git(["git", "status", "--porcelain", "--", ".", "../configs"])
    except (FileNotFoundError, PermissionError, subprocess.SubprocessError):  # no git, or none to be had
        return None
    return number + ("+changes" if changed.strip() else "")


def reset_peak_memory(device: torch.device) -> None:
    """Start a new maximum, since the runs of a sweep share a process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        try:
            pathlib.Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass  # a container may forbid it; the maximum is then that of the process


def peak_memory_mib(device: torch.device) -> float:
    """Return the largest memory so far: allocated on the GPU, or resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "linux":
        status = pathlib.Path("/proc/self/status").read_text()
        return float(status.split("VmHWM:")[1].split()[0]) / 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
