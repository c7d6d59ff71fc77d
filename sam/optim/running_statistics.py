"""Batch norm's running statistics: moved once per update, by the clean passes only.

The released code of the SAM paper keeps what the first pass saw and throws away what the second pass saw,
and averages over its replicas. Here the micro-batches take the place of the replicas: every one starts from
the same statistics, and their mean is written back. No module is switched, so this holds under compile and
any wrapper: buffers are copied out after a clean forward pass and copied in at the end.
"""

import torch
from torch import Tensor, nn


class RunningStatistics:
    """Keeps the buffers of a model in order during one update.

    Args:
        model: The buffers of layers with running statistics that are in training mode now (others are frozen)
            are averaged over micro-batches; counters move by one.
    """

    def __init__(self, model: nn.Module) -> None:
        moving = [layer for layer in model.modules() if layer.training and hasattr(layer, "running_mean")]
        buffers = [buffer for layer in moving for buffer in layer.buffers(recurse=False)]
        self.averaged = [buffer for buffer in buffers if buffer.is_floating_point()]
        self._counters = [buffer for buffer in buffers if not buffer.is_floating_point()]
        self._before: list[Tensor] = []
        self._kept: list[Tensor] = []
        self._kept_counters: list[Tensor] = []
        self._num_kept = 0

    def begin(self, num_micro_batches: int) -> None:
        """Start an update; call before its first forward pass."""
        self._num_kept = 0
        if num_micro_batches > 1:
            self._before = [buffer.clone() for buffer in self.averaged]

    def begin_micro_batch(self) -> None:
        """Go back to the statistics of before the update; call before every clean forward pass."""
        if self._num_kept and self.averaged:
            torch._foreach_copy_(self.averaged, self._before)

    def keep(self) -> None:
        """Take up what the clean forward pass left; call right after it."""
        if not self.averaged:
            return
        if self._num_kept == 0:
            self._kept = [buffer.clone() for buffer in self.averaged]
            self._kept_counters = [counter.clone() for counter in self._counters]
        else:
            torch._foreach_add_(self._kept, self.averaged)
        self._num_kept += 1

    def write(self) -> None:
        """Write back the mean of what was kept; call after the last pass of the update."""
        if not self._num_kept:
            return
        if self._num_kept > 1:
            torch._foreach_div_(self._kept, self._num_kept)
        torch._foreach_copy_(self.averaged, self._kept)
        if self._counters:
            torch._foreach_copy_(self._counters, self._kept_counters)
