"""The curves of metrics.csv for TensorBoard, against the epoch."""

import pathlib
from collections.abc import Sequence

from torch.utils.tensorboard import SummaryWriter

# A prefix makes a card of its own in TensorBoard.
GROUPS = {"train_": "train/", "test_": "test/"}


class TensorBoardLog:
    """Writes every number of a row as a scalar.

    Args:
        folder: Holds the event files.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def restart(self, rows: Sequence[dict[str, float]]) -> None:
        """Start a new event file with these rows; what older files say counts no more."""
        for old in self._folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(self._folder))
        for row in rows:
            self.log(row)

    def log(self, row: dict[str, float]) -> None:
        """Write one row."""
        assert self._writer is not None, "restart() comes first"
        for key, value in row.items():
            if key not in ("epoch", "step"):
                prefix = next((prefix for prefix in GROUPS if key.startswith(prefix)), "")
                tag = GROUPS.get(prefix, "other/") + key.removeprefix(prefix)
                self._writer.add_scalar(tag, value, int(row["epoch"]))
        self._writer.flush()

    def advance(self, epoch: int, step: int) -> None:
        """Ignore single updates."""

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
