"""SAM around any torch optimizer, batch-norm statistics of its first pass, and the learning-rate schedule."""

from sam.optim.running_statistics import RunningStatistics
from sam.optim.sam import SAM

__all__ = ["SAM", "RunningStatistics"]
