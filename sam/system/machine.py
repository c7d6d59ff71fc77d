"""The machine: versions, device, memory."""

import datetime
import importlib.metadata
import pathlib
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision

import sam


def environment(device: torch.device) -> dict[str, Any]:
    """Return the time, the version of the code, the libraries and the device, to store with measurements."""
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
    """Return the git commit of this code, with "+changes" if files differ from it; None without git."""
    git: Callable[..., str] = partial(
        subprocess.check_output,
        cwd=pathlib.Path(__file__).parents[1],
        text=True,
        stderr=subprocess.DEVNULL,
        timeout=10,
    )
    try:
        number = git(["git", "rev-parse", "--short=12", "HEAD"]).strip()
        changed = git(["git", "status", "--porcelain", "--", ".", "../configs"])
    except (FileNotFoundError, PermissionError, subprocess.SubprocessError):  # no git, or no repository
        return None
    return number + ("+changes" if changed.strip() else "")


def reset_peak_memory(device: torch.device) -> None:
    """Reset the maximum that peak_memory_mib returns, since the runs of a sweep share a process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        try:
            pathlib.Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass  # a container may forbid it; then the maximum of the whole process is reported


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory: allocated on the GPU, or resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "linux":
        status = pathlib.Path("/proc/self/status").read_text()
        return float(status.split("VmHWM:")[1].split()[0]) / 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
