"""The devices on which a test runs: a CPU, and a GPU where there is one."""

import pytest
import torch

GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")],
)
DEVICES = ["cpu", GPU]
# For weights in float64 after some updates. On a GPU, the length of SAM's move is rounded to float32.
BOUNDS_ON_GPU = {"rtol": 1e-6, "atol": 1e-7}
