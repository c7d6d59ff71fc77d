"""Batch norm's running statistics: updated once per update of the weights, by the clean passes only.

The released code of the SAM paper keeps the statistics of the first pass, drops those of the second pass, and
averages over its replicas. Here micro-batches take the role of the replicas: each starts from the same
statistics, and the mean of their results is written back. This copies buffers and changes no module, so it
also works with torch.compile and with wrappers: the buffers are copied out after each clean forward pass, and
their mean is copied in at the end of the update.
"""

import torch
from torch import Tensor, nn

_Found = list[tuple[Tensor, torch.dtype, torch.device]]


class RunningStatistics:
    """Averages a model's running statistics over the micro-batches of one update.

    All copies have fixed addresses as long as the model's buffers are the same ones, so a CUDA graph may hold
    begin_micro_batch(), the forward pass and keep().

    Args:
        model: The model. Layers that are not in training mode when an update begins are frozen: their buffers
            do not change. Floating-point buffers are averaged over micro-batches; counters increase by one
            per update.

    Attributes:
        averaged: The floating-point buffers.
        num_kept: Number of clean forward passes of this update so far. Who replays one from a CUDA graph adds
            it here.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.averaged: list[Tensor] = []
        self.num_kept = 0
        self._counters: list[Tensor] = []
        self._found: _Found | None = None
        self._find()

    def _find(self) -> None:
        """Find the buffers again: modes may have changed, and a new dtype or device makes new buffers."""
        layers = [layer for layer in self._model.modules() if layer.training]
        moving = [layer for layer in layers if hasattr(layer, "running_mean")]
        buffers = [buffer for layer in moving for buffer in layer.buffers(recurse=False)]
        averaged = [buffer for buffer in buffers if buffer.is_floating_point()]
        counters = [buffer for buffer in buffers if not buffer.is_floating_point()]
        found = [(buffer, buffer.dtype, buffer.device) for buffer in (*averaged, *counters)]
        if self._found is not None and _are_the_same(found, self._found):
            return
        self._found = found
        self.averaged, self._counters = averaged, counters
        self._before = [buffer.clone() for buffer in averaged]
        self._sums = [torch.zeros_like(buffer) for buffer in averaged]
        self._counters_before = [counter.clone() for counter in counters]
        self._counters_after = [counter.clone() for counter in counters]

    def begin(self) -> None:
        """Start an update; call before its first forward pass, with the model in the mode of that pass."""
        self._find()
        self.num_kept = 0
        _copy_(self._before, self.averaged)
        _copy_(self._counters_before, self._counters)
        if self._sums:
            torch._foreach_zero_(self._sums)

    def begin_micro_batch(self) -> None:
        """Reset the statistics to those before the update; call before every clean forward pass."""
        _copy_(self.averaged, self._before)
        _copy_(self._counters, self._counters_before)

    def keep(self) -> None:
        """Keep the statistics that a clean forward pass produced; call right after it."""
        if self._sums:
            torch._foreach_add_(self._sums, self.averaged)
        _copy_(self._counters_after, self._counters)
        self.num_kept += 1

    def write(self) -> None:
        """Write the mean of the kept statistics to the model; call after the last pass of the update."""
        if not self.num_kept:
            return
        if self.num_kept > 1 and self._sums:
            torch._foreach_div_(self._sums, self.num_kept)
        _copy_(self.averaged, self._sums)
        _copy_(self._counters, self._counters_after)


def _are_the_same(found: _Found, before: _Found) -> bool:
    return len(found) == len(before) and all(
        new[0] is old[0] and new[1:] == old[1:] for new, old in zip(found, before, strict=True)
    )


def _copy_(targets: list[Tensor], sources: list[Tensor]) -> None:
    if targets:  # the foreach functions refuse empty lists
        torch._foreach_copy_(targets, sources)
