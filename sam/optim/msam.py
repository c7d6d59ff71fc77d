"""MSAM: eps along the momentum buffer of the base optimizer (Becker et al., arXiv 2401.12033)."""

from typing import Any

import torch
from torch import Tensor

from sam.optim.one_pass import OnePassSAM

# In the state of torch's optimizers: SGD and RMSprop; Adam and AdamW.
BUFFERS = ("momentum_buffer", "exp_avg")


class MSAM(OnePassSAM):
    """Momentum-SAM: one pass at w - rho * v / ||v||_2, where v is the momentum buffer of the base optimizer.

    Becker et al., arXiv 2401.12033; the sign is that of their code. The base optimizer moves w along -v, so
    the point of the pass is ahead, along the coming step. Before the first step, v is zero and w does not
    move. v is the `momentum_buffer` of SGD and RMSprop, and the `exp_avg` of Adam and AdamW. So there is no
    further state.

    Departs from their code in weight decay. Here the base optimizer adds that of w; there it is that of
    w + eps.

    MSAM needs another rho than SAM: their code uses about 3 for WideResNets on CIFAR-100.

    Args:
        params: As in SAM.
        base_optimizer: As in SAM; it must have momentum.
        rho: Length of eps, in weight units; finite and >= 0.
        **base_arguments: As in SAM.

    Raises:
        TypeError: As in SAM.
        ValueError: If a perturbed group has no momentum, or is adaptive; and as in SAM.
    """

    def _settings(self, group: dict[str, Any]) -> dict[str, Any]:
        settings = super()._settings(group)
        given = self.defaults | group  # a new group may leave the momentum to the defaults
        momentum = given["betas"][0] if "betas" in given else given.get("momentum", 0)
        if settings["perturbed"] and not momentum:
            name = type(self.base_optimizer).__name__
            raise ValueError(
                f"MSAM perturbs along the momentum of the base optimizer, and {name} has none in a group; "
                "set momentum (or betas[0]) above 0, or perturbed=False in this group"
            )
        return settings

    def _direction(self, weight: Tensor) -> Tensor:
        state = self.state.get(weight)
        if not state:
            return torch.zeros_like(weight)
        for name in BUFFERS:
            if name in state:
                buffer: Tensor = state[name]
                return buffer
        raise RuntimeError(
            f"MSAM finds no momentum buffer ({' or '.join(BUFFERS)}) in the state of "
            f"{type(self.base_optimizer).__name__}; use SGD, RMSprop, Adam or AdamW of torch"
        )

    def _sign(self, group: dict[str, Any]) -> int:
        return -1
