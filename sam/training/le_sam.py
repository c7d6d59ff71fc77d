"""The rule of LE-SAM: the length of eps follows a schedule of the rise of the loss."""

from collections.abc import Callable, Hashable
from typing import Any

from sam.optim import LESAM
from sam.training.forward_backward import ForwardBackward
from sam.training.rule import SAMRule


class LESAMRule(SAMRule):
    """The two passes of SAM, with the length of eps that LE-SAM computes from sigma.

    sigma is the rise of the mean loss of one micro-batch (the m images that share an eps), with the weight
    decay that is part of the loss. It does not depend on the number of micro-batches in an update.

    Args:
        forward_backward: As in SAMRule.
        sam: LE-SAM.
        sigma_at: Returns sigma of an update, given its number in the run, counted from 0.
        **arguments: The other arguments of SAMRule, without ascent_steps, ascent_step_size and reuse.

    Raises:
        ValueError: If there is a loss scale; and as in SAMRule.
    """

    def __init__(
        self,
        forward_backward: ForwardBackward,
        sam: LESAM,
        sigma_at: Callable[[int], float],
        **arguments: Any,
    ) -> None:
        if forward_backward.precision.scales_loss:
            raise ValueError("LESAM cannot scale the loss; use precision bf16 instead of fp16")
        super().__init__(forward_backward, sam, **arguments)
        self._le_sam = sam
        self._sigma_at = sigma_at

    def begin(self, step: int) -> None:
        """Set sigma; see Rule."""
        super().begin(step)
        self._le_sam.sigma = self._sigma_at(step)

    def kind(self) -> Hashable:
        """Return also sigma, a number that accumulate() computes with; see Rule."""
        return super().kind(), self._le_sam.sigma
