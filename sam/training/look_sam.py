"""LookSAM (Liu et al., CVPR 2022): what SAM adds to the gradient changes slowly, so it is used again.

In an update that perturbs, with g the gradient at w and g_s the one at w + eps, the part of g_s at right
angles to g is kept: g_v = g_s - (g_s . g / ||g||^2) g. In the updates between, which cost one pass, the
gradient becomes g + alpha * (||g|| / ||g_v||) * g_v.
Departs from the paper where a batch is walked in micro-batches: both gradients are then their means.
"""

from typing import Any

import torch
from torch import Tensor

from sam.optim.perturbation import global_norm, orthogonal_part

KEPT = "orthogonal_gradient"


class OrthogonalReuse:
    """Keeps g_v in the state of an optimizer, so that it is saved and loaded with it.

    That is SGD: others, such as torch's Adam, take a state that is not empty for one of their own.
    It takes two more copies of the parameters: g during an update that perturbs, and g_v.

    Args:
        optimizer: Whose parameters it is about.
        alpha: Length of what is added, in units of ||g||; > 0.
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
        self._clean = []

    def add_clean_gradient(self, share: float) -> None:
        """Take up the gradient at w of one micro-batch, from `.grad`."""
        if not self._clean:
            self._clean = [torch.zeros_like(weight) for weight in self._weights]
        torch._foreach_add_(self._clean, self._grads(), alpha=share)

    def remember(self) -> None:
        """Keep the part of the gradient at w + eps, in `.grad`, at right angles to that at w."""
        grads = self._grads()
        parts = orthogonal_part(grads, self._clean)
        # Where SAM adds nothing (rho = 0), what is left is round-off, which add() would stretch to full
        # length; where a gradient is not finite, it is nothing to use again.
        noise = 100 * torch.finfo(grads[0].dtype).eps * global_norm(grads)
        is_real = (global_norm(parts) > noise) & torch.isfinite(global_norm(self._clean))
        for weight, part in zip(self._weights, parts, strict=True):
            self._optimizer.state[weight][KEPT] = torch.where(is_real, part, 0)
        self._clean = []

    def add(self) -> None:
        """Add to the plain gradient, in `.grad`, what was kept, alpha times as long as that gradient."""
        grads = self._grads()
        kept = [self._optimizer.state[weight][KEPT] for weight in self._weights]
        length = global_norm(kept)
        factor = torch.where(length > 0, self._alpha * global_norm(grads) / length, 0)
        torch._foreach_add_(grads, torch._foreach_mul(kept, factor))
