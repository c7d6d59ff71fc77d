"""The state of torch's random generators, saved in order to draw the same numbers again."""

import torch
from torch import Tensor


class RandomState:
    """Holds the state of the CPU's generator, and of the GPU's generator if the model is on a GPU.

    Args:
        device: The device of the model.
        state: The result of state(), from this or another process. None takes the current state.
    """

    def __init__(self, device: torch.device, state: dict[str, Tensor | None] | None = None) -> None:
        self._device = device
        if state is not None:
            self._cpu, self._gpu = state["cpu"], state["gpu"]
            return
        self._cpu = torch.get_rng_state()
        # While a CUDA graph is recorded, its generator has no state to read. Replay records only work that
        # draws nothing.
        is_readable = device.type == "cuda" and not torch.cuda.is_current_stream_capturing()
        self._gpu = torch.cuda.get_rng_state(device) if is_readable else None

    def equals(self, other: "RandomState") -> bool:
        """Return whether the generators have drawn nothing between two states of the same device."""
        pairs = ((self._cpu, other._cpu), (self._gpu, other._gpu))
        return all(mine is None or theirs is None or torch.equal(mine, theirs) for mine, theirs in pairs)

    def state(self) -> dict[str, Tensor | None]:
        """Return the state of both generators; the GPU's is None if no GPU is used."""
        return {"cpu": self._cpu, "gpu": self._gpu}

    def restore(self) -> None:
        """Set the generators to this state; a generator whose state is None is left unchanged."""
        if self._cpu is not None:
            torch.set_rng_state(self._cpu)
        if self._gpu is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(self._gpu, self._device)
