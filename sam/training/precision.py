"""What arithmetic the passes use: fp32, tf32, or bf16 / fp16 autocast over fp32 weights."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast and loss scaling of one run.

    Args:
        name: fp32, tf32, bf16 or fp16. tf32 and fp32 set torch's switches for matrix products and
            convolutions on GPUs, which torch by default leaves at tf32 for convolutions.
        device: Where the passes run.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        mode = "tf32" if name == "tf32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = mode
        torch.backends.cudnn.conv.fp32_precision = mode  # type: ignore[attr-defined]
        self._device_type = device.type
        self._dtype = AUTOCAST_DTYPES.get(name)
        # Only fp16 can overflow or underflow where fp32 would not.
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of one forward pass; its cache of cast weights ends with it."""
        return torch.autocast(self._device_type, self._dtype, enabled=self._dtype is not None)

    @property
    def scales_loss(self) -> bool:
        """Whether gradients are multiplied by a loss scale until the update."""
        return self.scaler.is_enabled()

    def unscaled(self, norm: Tensor) -> Tensor:
        """Return a norm of scaled gradients as that of the true ones, without waiting for the device."""
        if not self.scales_loss:
            return norm
        return norm / self.scaler.scale(torch.ones((), device=norm.device))
