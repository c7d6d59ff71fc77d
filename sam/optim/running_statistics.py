"""Batch norm's running statistics: updated once per update of the weights, by the clean passes only.

The released code of the SAM paper keeps the statistics of the first pass, drops those of the second pass, and
averages over its replicas. Here micro-batches take the role of the replicas: each starts from the same
statistics, and the mean of their results is written back. This copies buffers and changes no module, so it
also works with torch.compile and with wrappers: the buffers are copied out after each clean forward pass, and
their mean is copied in at the end of the update.
"""

import torch
from torch import Tensor, nn


class RunningStatistics:
    """Averages a model's running statistics over the micro-batches of one update.

    Args:
        model: The model. Layers that are not in training mode when an update begins are frozen: their buffers
            do not change. Floating-point buffers are averaged over micro-batches; counters increase by one
            per update.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._find()
        self._before: list[Tensor] = []
        self._kept: list[Tensor] = []
        self._kept_counters: list[Tensor] = []
        self._num_kept = 0

    def _find(self) -> None:
        """Find the buffers again: modes may have changed, and a new dtype or device makes new buffers."""
        layers = [layer for layer in self._model.modules() if layer.training]
        moving = [layer for layer in layers if hasattr(layer, "running_mean")]
        buffers = [buffer for layer in moving for buffer in layer.buffers(recurse=False)]
        self.averaged = [buffer for buffer in buffers if buffer.is_floating_point()]
        self._counters = [buffer for buffer in buffers if not buffer.is_floating_point()]

    def begin(self, num_micro_batches: int) -> None:
        """Start an update; call before its first forward pass, with the model in the mode of that pass."""
        self._find()
        self._num_kept = 0
        if num_micro_batches > 1:
            self._before = [buffer.clone() for buffer in self.averaged]

    def begin_micro_batch(self) -> None:
        """Reset the statistics to those before the update; call before every clean forward pass."""
        if self._num_kept and self.averaged:
            torch._foreach_copy_(self.averaged, self._before)

    def keep(self) -> None:
        """Keep the statistics that a clean forward pass produced; call right after it."""
        if not self.averaged:
            return
        if self._num_kept == 0:
            self._kept = [buffer.clone() for buffer in self.averaged]
            self._kept_counters = [counter.clone() for counter in self._counters]
        else:
            torch._foreach_add_(self._kept, self.averaged)
        self._num_kept += 1

    def write(self) -> None:
        """Write the mean of the kept statistics to the model; call after the last pass of the update."""
        if not self._num_kept:
            return
        if self._num_kept > 1:
            torch._foreach_div_(self._kept, self._num_kept)
        torch._foreach_copy_(self.averaged, self._kept)
        if self._counters:
            torch._foreach_copy_(self._counters, self._kept_counters)
