"""The state of torch's random generators, to draw the same numbers again."""

import torch
from torch import Tensor


class RandomState:
    """Remembers the state of the CPU's generator, and of a GPU's if the draws are made there.

    Args:
        device: Where a model draws.
        state: What state() returned, of this or another process; None takes that of now.
    """

    def __init__(self, device: torch.device, state: dict[str, Tensor | None] | None = None) -> None:
        self._device = device
        if state is not None:
            self._cpu, self._gpu = state["cpu"], state["gpu"]
        else:
            self._cpu = torch.get_rng_state()
            self._gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def state(self) -> dict[str, Tensor | None]:
        """Return the state of both generators, None for a GPU that is not used."""
        return {"cpu": self._cpu, "gpu": self._gpu}

    def restore(self) -> None:
        """Go back to that state; a generator that it says nothing of is left alone."""
        if self._cpu is not None:
            torch.set_rng_state(self._cpu)
        if self._gpu is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(self._gpu, self._device)
