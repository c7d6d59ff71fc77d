"""The precision of the passes: fp32, tf32, or bf16 / fp16 autocast with fp32 weights."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Set the precision of float32 matrix products and convolutions on GPUs, and reset it at the end.

    tf32 has 10 mantissa bits. For all other names, the precision is full. (torch's own default is tf32 for
    convolutions.)

    Args:
        precision: fp32, tf32, bf16 or fp16.
    """
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        yield
    finally:
        for switch, mode in zip(switches, before, strict=True):
            switch.fp32_precision = mode


class Precision:
    """Autocast and loss scaling of one run.

    Args:
        name: fp32, tf32, bf16 or fp16; only float32_products() makes a difference between fp32 and tf32.
        device: The device of the passes.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self._device_type = device.type
        self._dtype = AUTOCAST_DTYPES.get(name)
        # Only fp16 overflows or underflows at values that fp32 can represent.
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        """Return the autocast context of one forward pass; it drops its cache of cast weights at the end."""
        return torch.autocast(self._device_type, self._dtype, enabled=self._dtype is not None)

    @property
    def scales_loss(self) -> bool:
        """Whether gradients are multiplied by a loss scale until the update."""
        return self.scaler.is_enabled()

    def unscaled(self, norm: Tensor) -> Tensor:
        """Return the norm divided by the loss scale, without waiting for the device."""
        if not self.scales_loss:
            return norm
        return norm / self.scaler.scale(torch.ones((), device=norm.device))
