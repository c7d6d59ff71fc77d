"""LookSAM (Liu et al., CVPR 2022): the change that SAM makes to the gradient varies slowly, so it is reused.

Let g be the gradient at w and g_s the gradient at w + eps. An update that perturbs keeps the part of g_s that
is orthogonal to g: g_v = g_s - (g_s . g / ||g||^2) g. The updates in between make one pass only, and use the
gradient g + alpha * (||g|| / ||g_v||) * g_v.
Departure: if a batch is processed in micro-batches, g and g_s are their means over the micro-batches.
"""

from typing import Any

import torch
from torch import Tensor

from sam.optim.perturbation import global_norm, orthogonal_part

KEPT = "orthogonal_gradient"


class OrthogonalReuse:
    """Keeps g_v in the optimizer's state, so that g_v is saved and loaded with the optimizer.

    The optimizer must be SGD. Others, such as torch's Adam, do not create their own state if the state of a
    parameter is not empty. Two more copies of the parameters are kept in memory: g_v, and g of an update that
    perturbs.

    Args:
        optimizer: The optimizer of the parameters.
        alpha: Length of the added part, in units of ||g||; > 0.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, alpha: float) -> None:
        self._optimizer = optimizer
        self._weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self._alpha = alpha
        self._clean: list[Tensor] = []

    def _grads(self) -> list[Any]:
        return [torch.zeros_like(w) if w.grad is None else w.grad for w in self._weights]

    def forget(self) -> None:
        """Start an update that perturbs."""
        if self._clean:
            torch._foreach_zero_(self._clean)  # in place, because a CUDA graph may add to them
        else:
            self._clean = [torch.zeros_like(weight) for weight in self._weights]

    def add_clean_gradient(self, share: float) -> None:
        """Add share * the gradient in `.grad`: the gradient of one micro-batch at w."""
        torch._foreach_add_(self._clean, self._grads(), alpha=share)

    def remember(self) -> None:
        """Keep g_v: the part of the gradient at w + eps (in `.grad`) that is orthogonal to that at w."""
        grads = self._grads()
        parts = orthogonal_part(grads, self._clean)
        # If SAM changes nothing (rho = 0), g_v is only rounding error, and add() would scale it up to full
        # length. If a gradient is not finite, g_v is useless. In both cases g_v = 0 is kept.
        noise = 100 * torch.finfo(grads[0].dtype).eps * global_norm(grads)
        is_real = (global_norm(parts) > noise) & torch.isfinite(global_norm(self._clean))
        for weight, part in zip(self._weights, parts, strict=True):
            self._optimizer.state[weight][KEPT] = torch.where(is_real, part, 0)

    def add(self) -> None:
        """Add the kept g_v to the plain gradient in `.grad`, scaled to alpha times that gradient's length."""
        grads = self._grads()
        kept = [self._optimizer.state[weight][KEPT] for weight in self._weights]
        length = global_norm(kept)
        factor = torch.where(length > 0, self._alpha * global_norm(grads) / length, 0)
        torch._foreach_add_(grads, torch._foreach_mul(kept, factor))
