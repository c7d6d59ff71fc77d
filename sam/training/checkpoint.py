"""Checkpoints that survive a kill at any moment, and whose damage is detected.

A checkpoint is torch's zip file followed by its SHA-256 digest: 32 bytes that zip readers ignore. It is
written to a temporary file, forced to disk, read back, and compared with its digest. Only then is it renamed
to checkpoint.pt; the checkpoint before it is kept as checkpoint.previous.pt. The weights of single epochs, in
weights/, are written in the same way. (torch.load itself detects almost no flipped bits. The CRC-32 in a zip
file covers each record, but not the table of their positions.)
"""

import errno
import hashlib
import os
import pathlib
import warnings
from contextlib import suppress
from typing import Any, BinaryIO

import torch
from torch import Tensor

from sam.system.errors import first_line
from sam.system.files import naming
from sam.system.foreign_files import check_torch_file, open_regular

FORMAT = 4
# Far more than the number of tensors and other values in the checkpoint of any network.
MAX_PARTS = 1_000_000


class CheckpointStore:
    """The checkpoints of one run directory.

    Args:
        directory: The run directory; must exist before save().
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.newest = directory / "checkpoint.pt"
        self.previous = directory / "checkpoint.previous.pt"
        self._unfinished = directory / "checkpoint.unfinished.pt"
        self._weights = directory / "weights"
        # Set by load(). save() then does not move the damaged file over the intact previous checkpoint.
        self._newest_is_damaged = False

    def save(self, state: dict[str, Any]) -> None:
        """Write a state to disk as the newest checkpoint; keep the checkpoint before it.

        Raises:
            OSError: If the file cannot be written, or differs when it is read back. Older checkpoints stay
            unchanged.
        """
        self._write_unfinished(state)
        if self.newest.exists() and not self._newest_is_damaged:
            os.replace(self.newest, self.previous)
        os.replace(self._unfinished, self.newest)
        self._newest_is_damaged = False
        sync_folder(self.newest.parent)

    def keep(self, epoch: int, weights: dict[str, Tensor]) -> None:
        """Write the weights after an epoch to weights/epoch<k>.pt, which no later epoch replaces.

        Raises:
            OSError: As in save().
        """
        self._weights.mkdir(exist_ok=True)
        self._write_unfinished({"model": weights})
        os.replace(self._unfinished, self._weights / f"epoch{epoch}.pt")
        sync_folder(self._weights)

    def kept_epochs(self) -> list[int]:
        """Return the epochs whose weights were kept, in order."""
        names = [path.stem.removeprefix("epoch") for path in self._weights.glob("epoch*.pt")]
        return sorted(int(name) for name in names if name.isdecimal())

    def kept(self, epoch: int) -> dict[str, Tensor]:
        """Return the weights and buffers that were kept after an epoch, on the CPU.

        Raises:
            ValueError: If the file is damaged, or holds no weights.
            OSError: If it cannot be read.
        """
        path = self._weights / f"epoch{epoch}.pt"
        try:
            weights = _read(path).get("model")
        except OSError:
            raise
        except Exception as error:  # torch can raise almost anything for a file of unknown origin
            raise ValueError(f"{path} is damaged: {first_line(error)}") from error
        if not isinstance(weights, dict) or not all(isinstance(one, Tensor) for one in weights.values()):
            raise ValueError(f"{path} is damaged: it holds no weights")
        return weights

    def _write_unfinished(self, state: dict[str, Any]) -> None:
        """Write a state to the unfinished file, and read it back."""
        try:
            with naming(self._unfinished):
                self._write(state)
        except OSError:
            with suppress(OSError):
                self._unfinished.unlink()  # the disk may be full, and half a file is of no use
            raise
        if (damage := find_damage(self._unfinished)) is not None:
            raise OSError(f"{self._unfinished} could not be read back: {damage}")

    def _write(self, state: dict[str, Any]) -> None:
        with open(self._unfinished, "wb") as file:
            hashing = _HashingWriter(file)
            try:
                torch.save({"format": FORMAT, **state}, hashing)  # type: ignore[arg-type]
            except RuntimeError as error:  # torch raises this when the disk is full
                raise OSError(f"{self._unfinished} could not be written: {error}") from error
            file.write(hashing.digest.digest())
            file.flush()
            os.fsync(file.fileno())

    def load(self) -> dict[str, Any] | None:
        """Return the newest readable state on the CPU, or None if there is no checkpoint.

        If the newest file is damaged, this warns, leaves the file in place, and reads the previous one.

        Raises:
            ValueError: If there are checkpoints but all are damaged.
            OSError: If a file may not be read. (An input/output error of the disk counts as damage instead.)
        """
        damages: list[str] = []
        for path in (self.newest, self.previous):
            if not path.exists():
                continue
            try:
                state = _read(path)
            except FileNotFoundError:
                continue  # the run replaced its checkpoint at this moment
            except Exception as error:  # torch can raise almost anything for a file of unknown origin
                if isinstance(error, OSError) and error.errno != errno.EIO:
                    raise  # the file is not damaged, and may well be the newest checkpoint
                damages.append(f"{path} is damaged: {first_line(error)}")
                self._newest_is_damaged = True
                continue
            for message in damages:
                warnings.warn(f"{message}; going back to {path.name}", stacklevel=2)
            return state
        if damages:
            raise ValueError(
                "; ".join(damages) + ". No checkpoint is left to continue from: start again with force=true"
            )
        return None

    def drop_previous(self) -> None:
        """Delete all but the newest checkpoint. Call it when a run has ended and the newest was read back."""
        self.previous.unlink(missing_ok=True)
        self._unfinished.unlink(missing_ok=True)


class _HashingWriter:
    """Writes bytes to a file and updates their digest at the same time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def find_damage(path: pathlib.Path) -> str | None:
    """Read a whole checkpoint file and describe its damage; return None if its digest is correct.

    Raises:
        OSError: If the file may not be read.
        ValueError: If it is not a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        remaining = path.stat().st_size - digest.digest_size
        while remaining > 0:
            block = file.read(min(remaining, 2**20))
            digest.update(block)
            remaining -= len(block)
        expected = file.read()
    return None if expected == digest.digest() else "its checksum differs"


def _read(path: pathlib.Path) -> dict[str, Any]:
    """Return the state in a checkpoint.

    Raises:
        ValueError: If the checkpoint is damaged or has another format.
    """
    damage = find_damage(path)
    if damage is not None:
        raise ValueError(damage)
    check_torch_file(path)
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    _check_parts(state)
    if state.get("format") != FORMAT:
        raise ValueError(f"its format is {state.get('format')}, this version reads {FORMAT}")
    return state


def _check_parts(state: dict[str, Any]) -> None:
    """Make sure that a state does not claim more data than its file holds.

    A hostile file may refer to one part many times, or give a small tensor a large shape.

    Raises:
        ValueError: If the state has too many parts, or a tensor is larger than its bytes.
    """
    parts: list[Any] = [state]
    for _ in range(MAX_PARTS):
        if not parts:
            return
        part = parts.pop()
        if isinstance(part, Tensor):
            if part.numel() * part.element_size() > part.untyped_storage().nbytes():
                raise ValueError("a tensor in it claims to be larger than its bytes")
        elif isinstance(part, dict | list | tuple):
            parts += part.values() if isinstance(part, dict) else part
    raise ValueError(f"it has more than {MAX_PARTS} parts")


def sync_folder(folder: pathlib.Path) -> None:
    """Force renames in a folder to disk, on systems where a folder can be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
