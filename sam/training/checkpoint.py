"""Checkpoints that survive a kill at any moment and tell when they are damaged.

A checkpoint is torch's zip file followed by the SHA-256 digest of it, 32 bytes that zip readers pass over.
It is written beside its place, forced to disk, read back, compared with its digest, and only then put in
place; the one before it stays as checkpoint.previous.pt. (torch.load itself notices almost no flipped bit,
and the CRC-32 that zip keeps of every record says nothing of the table that tells where records are.)
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

from sam.system.files import naming
from sam.system.foreign_files import check_torch_file, open_regular

FORMAT = 4
# Far more than any network has tensors, or random generators have numbers.
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
        # Found out by load(); the next save() then must not move it over the good one before it.
        self._newest_is_damaged = False

    def save(self, state: dict[str, Any]) -> None:
        """Put a state on disk as the newest checkpoint; keep the one before.

        Raises:
            OSError: If the disk refuses or returns something else; earlier checkpoints are untouched then.
        """
        try:
            with naming(self._unfinished):
                self._write(state)
        except OSError:
            with suppress(OSError):
                self._unfinished.unlink()  # half a file would only fill a disk that is full
            raise
        if (damage := find_damage(self._unfinished)) is not None:
            raise OSError(f"{self._unfinished} could not be read back: {damage}")
        if self.newest.exists() and not self._newest_is_damaged:
            os.replace(self.newest, self.previous)
        os.replace(self._unfinished, self.newest)
        self._newest_is_damaged = False
        sync_folder(self.newest.parent)

    def _write(self, state: dict[str, Any]) -> None:
        with open(self._unfinished, "wb") as file:
            hashing = _HashingWriter(file)
            try:
                torch.save({"format": FORMAT, **state}, hashing)  # type: ignore[arg-type]
            except RuntimeError as error:  # what torch makes of a full disk
                raise OSError(f"{self._unfinished} could not be written: {error}") from error
            file.write(hashing.digest.digest())
            file.flush()
            os.fsync(file.fileno())

    def load(self) -> dict[str, Any] | None:
        """Return the newest readable state on the CPU, or None if there is no checkpoint.

        A damaged file is left where it is, with a warning, and the one before it is used.

        Raises:
            ValueError: If there are checkpoints but all are damaged.
            OSError: If one may not be read; a disk that fails to read it has damaged it.
        """
        damages: list[str] = []
        for path in (self.newest, self.previous):
            if not path.exists():
                continue
            try:
                state = _read(path)
            except FileNotFoundError:
                continue  # the run went on at this moment
            except Exception as error:  # a file of other origin can make torch raise almost anything
                if isinstance(error, OSError) and error.errno != errno.EIO:
                    raise  # not the fault of the file: it may be the newest yet
                damages.append(f"{path} is damaged: {str(error).splitlines()[0]}")
                self._newest_is_damaged = True
                continue
            for message in damages:
                warnings.warn(f"{message}; going back to {path.name}", stacklevel=2)
            return state
        if damages:
            raise ValueError(
                "; ".join(damages) + ". No checkpoint is left to continue from: start anew with force=true"
            )
        return None

    def drop_previous(self) -> None:
        """Delete all but the newest checkpoint, once a run has ended and that one is known to be readable."""
        self.previous.unlink(missing_ok=True)
        self._unfinished.unlink(missing_ok=True)


class _HashingWriter:
    """Passes bytes on to a file and takes their digest on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def find_damage(path: pathlib.Path) -> str | None:
    """Read a whole checkpoint and say what is wrong with it; None if it has its digest.

    Raises:
        OSError: If it may not be read.
        ValueError: If it is no regular file.
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
        ValueError: If it is damaged or of another format.
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
    """Make sure that a state is as large as it looks: parts may be there many times, and tensors be expanded.

    Raises:
        ValueError: If it is not.
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
    """Force renames in a folder to disk, where the system allows to open folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
