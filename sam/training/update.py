"""One update of the weights from one device batch, processed in micro-batches of m images.

SGD with gradient accumulation, SAM and m-SAM all use this loop, so they treat batch norm in the same way.
"""

import torch
from torch import Tensor

from sam.training.forward_backward import ForwardBackward
from sam.training.replay import Replay
from sam.training.rule import Rule


class Update:
    """One update: micro-batches, running statistics, gradient clipping, and the optimizer's step.

    Args:
        rule: The rule that makes the passes.
        forward_backward: The same object that the rule uses.
        m: Images per micro-batch; None means the whole device batch.
        clip_norm: Largest 2-norm of the gradient in the optimizer's step; None means no clipping.
        replay: Replays recorded passes of this rule; None makes all passes eagerly.
    """

    def __init__(
        self,
        rule: Rule,
        forward_backward: ForwardBackward,
        m: int | None = None,
        clip_norm: float | None = None,
        replay: Replay | None = None,
    ) -> None:
        self.rule = rule
        self.replay = replay
        self.scaler = forward_backward.precision.scaler
        self.statistics = forward_backward.statistics
        self._m = m
        self._clip_norm = clip_norm

    def __call__(
        self, images: Tensor, targets: Tensor, lr: float, clean_targets: Tensor | None = None, step: int = 0
    ) -> Tensor:
        """Update the weights once.

        Args:
            images: float [B, C, H, W], where B is a multiple of m.
            targets: int64 [B], or the probability of each class, float [B, K].
            lr: Learning rate of this step, for every parameter group.
            clean_targets: The targets without label noise, in the same form; None without label noise.
            step: Number of updates before this one, for rules that do not perturb in every update.

        Returns:
            The rule's sums over the batch, float64 [len(rule.sums)], on the device.
        """
        optimizer = self.rule.base_optimizer
        for group in optimizer.param_groups:
            group["lr"] = lr
        sums = self.gradient(images, targets, clean_targets, step)
        self._step(optimizer)
        return sums

    def gradient(
        self, images: Tensor, targets: Tensor, clean_targets: Tensor | None = None, step: int = 0
    ) -> Tensor:
        """Leave the gradient of one update in `.grad`, before clipping, and make no step; see __call__()."""
        self.statistics.begin()
        if self.replay is None:
            accumulate = self.rule.accumulate
            self.rule.base_optimizer.zero_grad()
        else:
            accumulate = self.replay.accumulate
            self.replay.begin()
        m = self._m or len(targets)
        parts = list(zip(images.split(m), targets.split(m), strict=True))
        clean_parts = [None] * len(parts) if clean_targets is None else clean_targets.split(m)
        self.rule.begin(step)
        sums = torch.zeros(len(self.rule.sums), dtype=torch.float64, device=images.device)
        for number, ((part, part_targets), clean) in enumerate(zip(parts, clean_parts, strict=True), start=1):
            share = len(part_targets) / len(targets)
            sums += accumulate(part, part_targets, share, number == len(parts), clean)
        self.statistics.write()
        if self.replay is not None:
            self.replay.end()
        self.rule.end()
        return sums

    def _step(self, optimizer: torch.optim.Optimizer) -> None:
        # Without fp16 the scaler does nothing but call optimizer.step().
        self.scaler.unscale_(optimizer)
        if self._clip_norm is not None:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            torch.nn.utils.clip_grad_norm_(weights, self._clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
