"""The trainer's rule for Stable SAM (arXiv 2401.07250): SAM's direction, the plain gradient's length."""

from typing import Any

import torch
from torch import Tensor

from sam.optim import SAM
from sam.optim.perturbation import global_norm
from sam.optim.stable_sam import stretch_
from sam.training.forward_backward import ForwardBackward
from sam.training.rule import SAMRule


class StableSAMRule(SAMRule):
    """Two passes of SAM; the gradient of each micro-batch is scaled to the length of its gradient at w.

    The scaling comes before the gradients are averaged over the micro-batches. If weight decay is a part of
    the loss, it is a part of both gradients. DistributedDataParallel adds up gradients inside the last
    backward pass, before they can be scaled, so there must be one process.

    Args:
        forward_backward: As in SAMRule.
        sam: As in SAMRule.
        **arguments: Those of SAMRule, without ascent_fraction, reuse and sync_ascent.

    Raises:
        ValueError: If there are several processes; and as in SAMRule.
    """

    def __init__(self, forward_backward: ForwardBackward, sam: SAM, **arguments: Any) -> None:
        if forward_backward.is_distributed:
            raise ValueError("Stable SAM runs in one process; start it without torchrun")
        super().__init__(forward_backward, sam, **arguments)
        self._length = torch.zeros(())  # norm of the gradient at w of the current micro-batch

    def _perturb(self, share: float) -> Tensor:
        self._length = global_norm([w.grad for w in self._parameters if w.grad is not None])
        return super()._perturb(share)

    def _last_pass(self, images: Tensor, targets: Tensor, share: float | Tensor, sync: bool) -> Tensor:
        with self._without_gradients():
            sums = super()._last_pass(images, targets, 1.0, sync)
            new = {weight: weight.grad for weight in self._parameters if weight.grad is not None}
            grads = list(new.values())
            stretch_(grads, self._length)
            torch._foreach_mul_(grads, share)
        for weight, grad in new.items():
            weight.grad = grad if weight.grad is None else weight.grad.add_(grad)
        return sums
