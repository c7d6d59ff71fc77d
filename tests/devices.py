"""The devices on which a test runs: a CPU, and a GPU where there is one."""

import warnings
from contextlib import contextmanager

import pytest
import torch

GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")],
)
DEVICES = ["cpu", GPU]
# For weights in float64 after some updates. On a GPU, the length of SAM's move is rounded to float32.
BOUNDS_ON_GPU = {"rtol": 1e-6, "atol": 1e-7}


@contextmanager
def host_never_waits():
    """Let torch raise an error where the host would wait for a GPU."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls this mode a prototype, once per process
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
