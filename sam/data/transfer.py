"""Copies from the host to the training device, for which the host does not wait."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor on the device. A GPU copies from pinned memory, while the host goes on."""
    if device.type == "cuda":
        # torch reuses this pinned memory only after the copy.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
