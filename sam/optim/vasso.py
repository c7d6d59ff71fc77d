"""VaSSO: eps along a running average of the gradients (Li and Giannakis, NeurIPS 2023)."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sam.optim.averaged import AveragedSAM
from sam.optim.groups import check_number


class VaSSO(AveragedSAM):
    """Variance-suppressed SAM: eps changes less from batch to batch than that of SAM.

    d_t = (1 - theta) * d_{t-1} + theta * g_t,  eps = rho * d_t / ||d_t||_2.
    In the first update, d = g. Li and Giannakis, NeurIPS 2023, arXiv 2309.15639.

    Args:
        params: As in SAM.
        base_optimizer: As in SAM.
        rho: As in SAM.
        theta: Weight of the newest gradient; 0 < theta <= 1. With 1, this is SAM, to the bit.
        adaptive: As in SAM; d takes the place of g.
        p: As in SAM; d takes the place of g.
        **base_arguments: As in SAM.

    Raises:
        TypeError: If theta is not a number; and as in SAM.
        ValueError: If theta is out of range; and as in SAM. perturb() also refuses sharded weights.
    """

    def __init__(
        self,
        params: Any,
        base_optimizer: type[Optimizer] | Optimizer,
        rho: float = 0.05,
        theta: float = 0.4,
        adaptive: bool = False,
        p: float = 2.0,
        **base_arguments: Any,
    ) -> None:
        check_number("theta", theta)
        if not 0 < theta <= 1:
            raise ValueError(f"theta must be greater than 0 and at most 1, got {theta}")
        self._theta = theta
        super().__init__(
            params, base_optimizer, rho=rho, decay=1 - theta, adaptive=adaptive, p=p, **base_arguments
        )

    def _along(self, grads: list[Tensor], averages: list[Tensor]) -> list[Tensor]:
        return list(torch._foreach_lerp(averages, grads, self._theta))
