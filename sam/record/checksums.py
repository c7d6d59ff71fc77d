"""Checksums of the files of an ended run, stored in result.json.

Without them, a damaged digit would go unnoticed: it is still a number. They cover config.yaml, metrics.csv
and result.json itself. A checkpoint holds its own digest.
"""

import hashlib
import json
import pathlib
from typing import Any

from sam.system.foreign_files import read_text

COVERED_FILES = ("config.yaml", "metrics.csv")


def sealed(directory: pathlib.Path, result: dict[str, Any]) -> dict[str, Any]:
    """Return a result with its own checksum and those of COVERED_FILES.

    Args:
        directory: The run directory; a missing file gets no checksum.
        result: The future content of result.json: JSON values only.
    """
    files = {
        name: _digest((directory / name).read_bytes())
        for name in COVERED_FILES
        if (directory / name).exists()
    }
    return {**result, "checksums": {**files, "result.json": _digest_of({**result, "checksums": files})}}


def is_whole(result: dict[str, Any]) -> bool:
    """Return whether a result matches its checksum; true for a result of a version without checksums."""
    if "checksums" not in result:
        return True
    if not isinstance(result["checksums"], dict):
        return False
    files = dict(result["checksums"])
    own = files.pop("result.json", None)
    return bool(own == _digest_of({**result, "checksums": files}))


def check_file(path: pathlib.Path, result: dict[str, Any]) -> str | None:
    """Check that a file of an ended run has not changed since the run ended.

    Args:
        path: The config.yaml or metrics.csv of the run.
        result: The whole content of its result.json.

    Returns:
        The text of the file; None if it was not read, because there is no checksum of it.

    Raises:
        ValueError: If the file has changed or is missing.
        OSError: If the file cannot be read.
    """
    expected = result.get("checksums", {}).get(path.name)
    if expected is None:
        return None
    if not path.exists():
        fault = "is missing"
    elif _digest((text := read_text(path)).encode()) != expected:
        fault = "is damaged: its checksum is not the one in result.json"
    else:
        return text
    raise ValueError(
        f"{path.name} {fault}; copy the file again, or, if the run directory has a checkpoint, delete "
        "result.json and give the command of the run again, which writes both files from the checkpoint"
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of(record: dict[str, Any]) -> str:
    return _digest(json.dumps(record, sort_keys=True).encode())
