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
        else:
            self._cpu = torch.get_rng_state()
            self._gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def state(self) -> dict[str, Tensor | None]:
        """Return the state of both generators; the GPU's is None if no GPU is used."""
        return {"cpu": self._cpu, "gpu": self._gpu}

    def restore(self) -> None:
        """Set the generators to this state; a generator whose state is None is left unchanged."""
        if self._cpu is not None:
            torch.set_rng_state(self._cpu)
        if self._gpu is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(self._gpu, self._device)
