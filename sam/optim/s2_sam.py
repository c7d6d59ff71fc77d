"""S2-SAM: eps along the gradient of the update before (Single-step SAM, NeurIPS 2024)."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sam.optim.groups import checked_gradients, sign_of
from sam.optim.memory import any_sharded
from sam.optim.one_pass import OnePassSAM
from sam.optim.perturbation import global_norm


class S2SAM(OnePassSAM):
    """Single-step SAM: one pass at w + rho * g / ||g||_2, where g is the gradient of the update before.

    g is the gradient of another batch, at the w + eps of that update, before any clipping. It is taken from
    `.grad` when the weights return to w. In the first update, eps is zero. A gradient that is not finite is
    not kept, so g is then that of an earlier update. A loss scale does not change eps.
    NeurIPS 2024, OpenReview MJgMMqMDu4; the form is that of their code, without its adaptive branch (which
    squares the gradient where ASAM squares the weight).

    Weight decay of the base optimizer is no part of g. One more copy of the perturbed parameters is kept, and
    saved by state_dict().

    Args:
        params: As in SAM.
        base_optimizer: As in SAM.
        rho: Length of eps, in weight units; finite and >= 0.
        **base_arguments: As in SAM.

    Raises:
        TypeError: As in SAM.
        ValueError: If a group is adaptive; and as in SAM. perturb() also refuses sharded parameters.
    """

    def __init__(
        self,
        params: Any,
        base_optimizer: type[Optimizer] | Optimizer,
        *,
        rho: float = 0.05,
        **base_arguments: Any,
    ) -> None:
        self._kept: dict[Tensor, Tensor] = {}
        super().__init__(params, base_optimizer, rho=rho, **base_arguments)

    def _direction(self, weight: Tensor) -> Tensor:
        if any_sharded([weight]):
            raise ValueError("S2SAM does not work with sharded parameters; use SAM or MSAM")
        kept = self._kept.get(weight)
        if kept is None or kept.shape != weight.shape:
            return torch.zeros_like(weight)
        return kept.to(weight)  # the weight may have been cast or moved

    def _sign(self, group: dict[str, Any]) -> int:
        return sign_of(group)

    @torch.no_grad()
    def remember(self) -> None:
        """Keep the gradients in `.grad` for the next update, if all of them are finite.

        A parameter without a gradient is given zeros, unless no parameter has a gradient. The weights must be
        at w + eps. perturbed_weights(), second_step() and step(closure) call this. Code that calls perturb()
        and restore() must call it between the pass and restore().

        Raises:
            RuntimeError: If the weights are not perturbed.
            TypeError: If a gradient is sparse.
        """
        weights = self._perturbed_weights()
        with_gradients = [weight for weight in weights if weight.grad is not None]
        if not with_gradients:
            return
        checked_gradients(with_gradients, is_plain=True)
        grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        is_finite = torch.isfinite(global_norm(grads))
        for weight, grad in zip(weights, grads, strict=True):
            before = self._direction(weight)
            self._kept[weight] = torch.where(is_finite.to(grad.device), grad, before)

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "gradients": self._by_number(self._kept)}

    def _load_own_state(self, own: dict[str, Any]) -> None:
        super()._load_own_state(own)
        weights = self._weights()
        self._kept.clear()  # not a new dict: wrappers such as Lightning's copy the attributes
        for number, grad in own.get("gradients", {}).items():
            self._kept[weights[number]] = grad.to(weights[number], copy=True)
