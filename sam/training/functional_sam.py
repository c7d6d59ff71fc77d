"""Functional-SAM (ICML 2025, arXiv 2502.02407): the Jacobian of w + eps, with the error signal of w."""

from typing import Any

import torch
from torch import Tensor

from sam.optim import SAM
from sam.training.forward_backward import ForwardBackward, pass_sums
from sam.training.rule import SAMRule


class FunctionalSAMRule(SAMRule):
    """The two passes of SAM, but the second one uses the error signal of the first.

    Let z be the logits of a micro-batch, J(w) their Jacobian, and r = dL/dz at w. SAM's gradient is
    J(w + eps)^T dL/dz(w + eps). This rule uses J(w + eps)^T r. If the logits are linear in w, this is the
    plain gradient, for every rho. Weight decay in the loss also acts at w. It is part of the gradient that
    gives eps.

    Reported losses at w + eps are those of the images, as for SAM. The cosine is left out if weight decay is
    part of the loss, because `.grad` does not contain it yet when the cosine is computed.

    Args:
        forward_backward: As in SAMRule.
        sam: As in SAMRule.
        **arguments: Those of SAMRule, without ascent_steps, ascent_step_size, ascent_fraction and reuse.
    """

    def __init__(self, forward_backward: ForwardBackward, sam: SAM, **arguments: Any) -> None:
        super().__init__(forward_backward, sam, **arguments)
        self._can_compare = self._can_compare and not forward_backward.weight_decay_in_loss
        self._signal = torch.empty(0)  # r of the current micro-batch, [m, K]

    def end(self) -> None:
        """Add the weight decay at w; see Rule."""
        super().end()
        if self._ascents.includes(self._step):
            self._pass.add_weight_decay(1.0)

    def _first_pass(self, images: Tensor, targets: Tensor, clean_targets: Tensor | None) -> Tensor:
        with self._pass.exchange(self._sync_ascent):
            logits, loss = self._pass.forward(self._pass.model, images, targets, clean=True)
            (self._signal,) = torch.autograd.grad(loss, logits, retain_graph=True)
            self._pass.backward(loss, 1.0)
        return pass_sums(logits.detach(), loss.detach(), targets, clean_targets)

    def _last_pass(self, images: Tensor, targets: Tensor, share: float | Tensor, sync: bool) -> Tensor:
        with self._pass.exchange(sync):
            logits, loss = self._pass.forward(self._pass.model, images, targets, clean=False)
            self._pass.backward((self._signal * logits).sum(), share, with_decay=False)
        return pass_sums(logits.detach(), loss.detach(), targets, None)
