"""Checkpoints that survive a kill at any moment and tell when they are damaged.

A checkpoint is torch's zip file. It is written beside its place, forced to disk, read back and checked
against the CRC-32 of every record, and only then put in place; the one before it stays as
checkpoint.previous.pt. torch.load itself notices almost no flipped bit, so reading checks the CRCs too.
"""

import os
import pathlib
import warnings
import zipfile
from typing import Any

import torch

FORMAT = 1


class CheckpointStore:
    """The checkpoints of one run directory.

    Args:
        directory: The run directory; must exist before save().
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.newest = directory / "checkpoint.pt"
        self.previous = directory / "checkpoint.previous.pt"
        self._unfinished = directory / "checkpoint.unfinished.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Put a state on disk as the newest checkpoint; keep the one before.

        Raises:
            OSError: If the disk refuses or returns something else; earlier checkpoints are untouched then.
        """
        with open(self._unfinished, "wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        if (damage := find_damage(self._unfinished)) is not None:
            raise OSError(f"{self._unfinished} could not be read back: {damage}")
        if self.newest.exists():
            os.replace(self.newest, self.previous)
        os.replace(self._unfinished, self.newest)
        sync_folder(self.newest.parent)

    def load(self) -> dict[str, Any] | None:
        """Return the newest readable state on the CPU, or None if there is no checkpoint.

        A damaged file is left where it is, with a warning, and the one before it is used.

        Raises:
            ValueError: If there are checkpoints but none can be read.
        """
        damages: list[str] = []
        for path in (self.newest, self.previous):
            if not path.exists():
                continue
            damage = find_damage(path)
            if damage is None:
                state = torch.load(path, map_location="cpu", weights_only=True)
                if state.get("format") == FORMAT:
                    for message in damages:
                        warnings.warn(f"{message}; going back to {path.name}", stacklevel=2)
                    return dict(state)
                damage = f"its format is {state.get('format')}, this version reads {FORMAT}"
            damages.append(f"{path} is damaged: {damage}")
        if damages:
            raise ValueError(
                "; ".join(damages) + ". No checkpoint is left to continue from: start anew with force=true"
            )
        return None

    def drop_previous(self) -> None:
        """Delete all but the newest checkpoint, once a run has ended and that one is known to be readable."""
        self.previous.unlink(missing_ok=True)
        self._unfinished.unlink(missing_ok=True)


def find_damage(path: pathlib.Path) -> str | None:
    """Read a whole checkpoint and say what is wrong with it; None if every record has its CRC."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        return str(error) or type(error).__name__
    return None if bad is None else f"checksum of {bad} differs"


def sync_folder(folder: pathlib.Path) -> None:
    """Force renames in a folder to disk, where the system allows to open folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
