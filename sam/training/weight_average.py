"""An exponential moving average (EMA) of the weights of a run."""

import copy

import torch
from torch import nn

from sam.optim.running_statistics import RunningStatistics


class WeightAverage:
    """A second network, whose weights are the moving average of the weights of the network in training.

    After update t, counted from 1: a <- d * a + (1 - d) * w with d = min(decay, (1 + t) / (10 + t)), as in
    the released code of the SAM paper. The running statistics of batch norm are averaged in the same way,
    also as there, so that they fit the averaged weights; counters are copied. Departs from that code: it
    copies the weights in the first 1,560 updates (five epochs of its ImageNet runs), and counts t from there.

    torch.optim.swa_utils.AveragedModel does not fit: it also averages the counters of batch norm, and on a
    GPU the host waits for the device in every update.

    Args:
        network: The network in training mode; the average begins with its weights. A copy is made.
        decay: Weight of the old average, 0 < decay < 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network)
        self._decay = decay
        # Each process has statistics of its own images.
        self.statistics = RunningStatistics(self.network).averaged

    @torch.no_grad()
    def update(self, network: nn.Module, num_updates: int) -> None:
        """Move the average towards the weights of a network.

        Args:
            network: The network in training.
            num_updates: Number of its updates so far, at least 1.
        """
        averages = [*self.network.parameters(), *self.network.buffers()]
        pairs = list(zip(averages, [*network.parameters(), *network.buffers()], strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        decay = min(self._decay, (1 + num_updates) / (10 + num_updates))
        torch._foreach_lerp_([a for a, _ in averaged], [w for _, w in averaged], 1 - decay)
        if counters:
            torch._foreach_copy_([a for a, _ in counters], [w for _, w in counters])
