"""The trainer's rule for MSAM and S2-SAM: one pass, at w + eps, with eps from earlier updates."""

from collections.abc import Hashable

import torch
from torch import Tensor

from sam.optim.one_pass import OnePassSAM
from sam.training.forward_backward import PASS_SUMS, ForwardBackward


class OnePassRule:
    """One pass at w + eps, the same eps for all micro-batches and processes, so m does not change eps.

    The sums are those of SGD, but at w + eps: the weights are there from begin() to end(). Batch norm's
    running statistics come from this pass. Weight decay in the loss acts at w + eps. It is added at the end,
    so that the optimizer remembers the gradient of the batch without it.

    Args:
        forward_backward: Makes a pass.
        optimizer: Holds rho and the direction of eps, and the base optimizer that makes the step.
    """

    sums: tuple[str, ...] = PASS_SUMS

    def __init__(self, forward_backward: ForwardBackward, optimizer: OnePassSAM) -> None:
        self.optimizer: torch.optim.Optimizer = optimizer
        self.base_optimizer = optimizer.base_optimizer
        self._sam = optimizer
        self._pass = forward_backward

    def begin(self, step: int) -> None:
        """Move to w + eps; see Rule."""
        self._sam.perturb()

    def kind(self) -> Hashable:
        """Return one value: every update is the same."""
        return None

    def accumulate(
        self, images: Tensor, targets: Tensor, share: float, sync: bool, clean_targets: Tensor | None = None
    ) -> Tensor:
        """Add the gradient at w + eps, without weight decay; see Rule."""
        try:
            return self._pass(
                images, targets, clean_targets, share=share, sync=sync, clean=True, with_decay=False
            )
        except BaseException:
            self._sam.restore()
            raise

    def end(self) -> None:
        """Add weight decay, and return to w; see Rule."""
        self._sam.remember()
        self._pass.add_weight_decay(1.0)
        self._sam.restore()
