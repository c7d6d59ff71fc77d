"""F-SAM: eps along the part of the gradient that is specific to its batch (Li et al., CVPR 2024)."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sam.optim.averaged import AveragedSAM
from sam.optim.groups import check_number


class FSAM(AveragedSAM):
    """Friendly SAM: SAM without the part of the gradient that all batches share.

    d_t = g_t - sigma * m_{t-1},  m_t = decay * m_{t-1} + (1 - decay) * g_t,  eps = rho * d_t / ||d_t||_2.
    In the first update, m = g, and eps points along g.
    Li et al., CVPR 2024, arXiv 2403.12350; the form is that of their code. Their paper has m_t instead of
    m_{t-1} in d_t. For sigma = 1, that is the same direction, because g - m_t = decay * (g - m_{t-1}).

    Args:
        params: As in SAM.
        base_optimizer: As in SAM.
        rho: As in SAM.
        sigma: Share of the average that is subtracted; finite and >= 0. With 0, this is SAM.
        decay: lambda of the paper; 0 <= decay < 1. The paper uses 0.6 to 0.95.
        adaptive: As in SAM; d takes the place of g.
        p: As in SAM; d takes the place of g.
        **base_arguments: As in SAM.

    Raises:
        TypeError: If sigma or decay is not a number; and as in SAM.
        ValueError: If sigma or decay is out of range; and as in SAM. perturb() also refuses sharded weights.
    """

    def __init__(
        self,
        params: Any,
        base_optimizer: type[Optimizer] | Optimizer,
        rho: float = 0.05,
        sigma: float = 1.0,
        decay: float = 0.9,
        adaptive: bool = False,
        p: float = 2.0,
        **base_arguments: Any,
    ) -> None:
        check_number("sigma", sigma)
        check_number("decay", decay)
        if not 0 <= sigma < float("inf"):
            raise ValueError(f"sigma must be finite and >= 0, got {sigma}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and less than 1, got {decay}")
        self._sigma = sigma
        super().__init__(
            params, base_optimizer, rho=rho, decay=decay, adaptive=adaptive, p=p, **base_arguments
        )

    def _along(self, grads: list[Tensor], averages: list[Tensor]) -> list[Tensor]:
        return list(torch._foreach_add(grads, averages, alpha=-self._sigma))
