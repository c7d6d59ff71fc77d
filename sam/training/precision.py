"""The arithmetic of the passes: fp32, tf32, or bf16 / fp16 autocast with fp32 weights."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Set how GPUs multiply and convolve float32: fully, or for tf32 with 10 mantissa bits; then reset it.

    torch's own default is tf32 for convolutions.

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
        name: fp32, tf32, bf16 or fp16; float32_products() tells fp32 and tf32 apart.
        device: The device of the passes.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self._device_type = device.type
        self._dtype = AUTOCAST_DTYPES.get(name)
        # Only fp16 can overflow or underflow where fp32 would not.
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
