"""What the training loop needs from the data and from the logs."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from sam.training.rows import Row


class Batches(Protocol):
    """The interface of the training data."""

    steps_per_epoch: int
    batch_size: int  # over all processes

    def epoch(self, epoch: int, first_step: int = 0) -> Any:
        """Iterate over (images, targets, clean targets or None) of an epoch, beginning with first_step."""


class Logger(Protocol):
    """Receives one row of numbers per epoch."""

    def restart(self, rows: Sequence[Row]) -> None:
        """Start the log with the rows of the epochs that are already complete."""

    def log(self, row: Row) -> None:
        """Add the row of the epoch that just ended."""

    def advance(self, epoch: int, step: int, loss: Tensor) -> None:
        """Report progress: `step` updates of the epoch are done; the sum of their losses is on the device."""

    def close(self) -> None:
        """Finish the log; it is not used afterwards."""
