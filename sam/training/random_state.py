"""The state of torch's random generators, to draw the same numbers again."""

import torch


class RandomState:
    """Remembers the state of the CPU's generator, and of a GPU's if the draws are made there.

    Args:
        device: Where a model draws.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Go back to that state."""
        torch.set_rng_state(self._cpu)
        if self._gpu is not None:
            torch.cuda.set_rng_state(self._gpu, self._device)
