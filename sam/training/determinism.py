"""The same bits on a GPU: the switches of torch, cuDNN and cuBLAS that make a computation repeatable.

With them, torch takes algorithms that add numbers in a fixed order, and raises an error where it has none. It
knows no such algorithm for the gradients of adaptive pooling (to more than one pixel), of padding by
reflection, and of bilinear or bicubic resizing. No network in sam.models needs these; one of timm may.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sam.system.errors import ConfigError

# The values with which torch allows cuBLAS in deterministic mode.
CUBLAS_WORKSPACES = (":4096:8", ":16:8")


def fix_cublas_workspaces() -> None:
    """Set CUBLAS_WORKSPACE_CONFIG if it is not set. Call this before CUDA starts, since it is read only once.

    Nothing is set without a GPU, or if CUDA has already started.
    """
    if torch.cuda.is_available() and not torch.cuda.is_initialized():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACES[0])


@contextmanager
def deterministic_algorithms(wanted: bool, device: torch.device) -> Iterator[None]:
    """Make torch use deterministic algorithms only, and reset its switches at the end.

    Args:
        wanted: False changes nothing.
        device: The device of the passes. On a CPU, the switches change no bits.

    Raises:
        ConfigError: If cuBLAS may already work with other workspaces in this process.
    """
    if not wanted:
        yield
        return
    if device.type == "cuda":
        _check_cublas_workspaces()
    cudnn = torch.backends.cudnn
    flags = cudnn.benchmark, cudnn.deterministic
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        torch.use_deterministic_algorithms(True)
        cudnn.benchmark, cudnn.deterministic = False, True
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = flags
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)


def _check_cublas_workspaces() -> None:
    value = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    if value is None:
        raise ConfigError(
            "runtime.deterministic=true: CUDA has already started in this process, without "
            "CUBLAS_WORKSPACE_CONFIG; start this run in a command of its own, or set "
            f"CUBLAS_WORKSPACE_CONFIG={CUBLAS_WORKSPACES[0]} before"
        )
    if value not in CUBLAS_WORKSPACES:
        raise ConfigError(
            f"runtime.deterministic=true: CUBLAS_WORKSPACE_CONFIG={value} does not give the same bits; "
            f"allowed is {' or '.join(CUBLAS_WORKSPACES)}; unset it"
        )
