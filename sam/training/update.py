"""One update of the weights from one device batch, walked in micro-batches of m images.

The one loop for every rule: SGD with gradient accumulation, SAM, m-SAM, all with the same batch norm.
"""

import torch
from torch import Tensor

from sam.training.rule import ForwardBackward, Rule


class Update:
    """Micro-batches, running statistics, clipping, step.

    Args:
        rule: Which passes are made.
        forward_backward: The one the rule uses.
        m: Images per micro-batch; None means the whole device batch.
        clip_norm: Largest 2-norm of the gradient that the optimizer sees; None means no clipping.
    """

    def __init__(
        self,
        rule: Rule,
        forward_backward: ForwardBackward,
        m: int | None = None,
        clip_norm: float | None = None,
    ) -> None:
        self.rule = rule
        self.scaler = forward_backward.precision.scaler
        self._statistics = forward_backward.statistics
        self._m = m
        self._clip_norm = clip_norm

    def __call__(self, images: Tensor, targets: Tensor, lr: float) -> Tensor:
        """Change the weights once.

        Args:
            images: float [B, C, H, W], B a multiple of m.
            targets: int64 [B].
            lr: Learning rate of this step, for every parameter group.

        Returns:
            float64 [len(rule.sums)], the rule's sums over the batch, on the device.
        """
        optimizer = self.rule.base_optimizer
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        m = self._m or len(targets)
        parts = list(zip(images.split(m), targets.split(m), strict=True))
        self._statistics.begin(len(parts))
        sums = torch.zeros(len(self.rule.sums), dtype=torch.float64, device=images.device)
        for number, (part, part_targets) in enumerate(parts, start=1):
            share = len(part_targets) / len(targets)
            sums += self.rule.accumulate(part, part_targets, share, sync=number == len(parts))
        self._statistics.write()
        self._step(optimizer)
        return sums

    def _step(self, optimizer: torch.optim.Optimizer) -> None:
        # Without fp16 the scaler does nothing but call optimizer.step().
        self.scaler.unscale_(optimizer)
        if self._clip_norm is not None:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            torch.nn.utils.clip_grad_norm_(weights, self._clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
