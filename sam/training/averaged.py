"""The rule of F-SAM and VaSSO: eps also depends on the gradients of earlier updates."""

from typing import Any

import torch
from torch import Tensor

from sam.optim.averaged import AveragedSAM
from sam.training.distributed import World
from sam.training.forward_backward import ForwardBackward
from sam.training.rule import SAMRule


class AveragedSAMRule(SAMRule):
    """The two passes of SAM, with a running average that is the same for all micro-batches of an update.

    Each micro-batch has its own direction d_i, from its gradient g_i and the average of the updates before.
    At the end of the update, the average takes in the mean of all g_i. (For VaSSO, the average is then the
    mean of the d_i. The papers do not have micro-batches; for F-SAM, this form is a proposal of this
    project.) A g_i that is not finite, or an update that does not perturb, does not change the average.

    With several processes, the mean is over the micro-batches of all of them, so that they have the same
    average. This costs one more exchange of gradients per update. (With sync_ascent, it costs none: there all
    processes have the same g_i, after an exchange per micro-batch.)

    Args:
        forward_backward: As in SAMRule.
        sam: F-SAM or VaSSO.
        world: The processes that share each batch.
        sync_ascent: As in SAMRule.
        **arguments: The other arguments of SAMRule, without ascent_steps, ascent_step_size and reuse.

    Raises:
        ValueError: If there is a loss scale; and as in SAMRule.
    """

    def __init__(
        self,
        forward_backward: ForwardBackward,
        sam: AveragedSAM,
        world: World,
        sync_ascent: bool = False,
        **arguments: Any,
    ) -> None:
        if forward_backward.precision.scales_loss:
            raise ValueError(
                f"{type(sam).__name__} cannot scale the loss; use precision bf16 instead of fp16"
            )
        super().__init__(forward_backward, sam, sync_ascent=sync_ascent, **arguments)
        self._averaged = sam
        self._world = world
        self._mean: dict[Tensor, Tensor] = {}

    def begin(self, step: int) -> None:
        """Start a new mean of the gradients; see Rule."""
        super().begin(step)
        if self._mean:
            torch._foreach_zero_(list(self._mean.values()))  # in place, because a CUDA graph may add to them

    def end(self) -> None:
        """Add the mean of the gradients at w to the average; see Rule."""
        super().end()
        if not self._ascents.includes(self._step):
            return
        if not self._sync_ascent:
            self._world.joint_mean_(list(self._mean.values()))
        self._averaged.update_average(self._mean)

    def _perturb(self, share: float) -> Tensor:
        grads = {weight: weight.grad for weight in self._parameters if weight.grad is not None}
        for weight, grad in grads.items():
            if weight not in self._mean:
                self._mean[weight] = torch.zeros_like(grad)
        torch._foreach_add_([self._mean[weight] for weight in grads], list(grads.values()), alpha=share)
        return super()._perturb(share)
