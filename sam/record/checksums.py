"""Checksums in result.json, of the files that an ended run leaves: a damaged number may still be a number.

They tell of config.yaml, metrics.csv and result.json itself. A checkpoint has one of its own.
"""

import hashlib
import json
import pathlib
from typing import Any

from sam.system.foreign_files import read_text

BESIDE = ("config.yaml", "metrics.csv")


def sealed(directory: pathlib.Path, result: dict[str, Any]) -> dict[str, Any]:
    """Return a result with the checksums of itself and of the files beside it.

    Args:
        directory: Of the run; a file that is not there gets none.
        result: What result.json is to hold: values of JSON.
    """
    files = {name: _digest((directory / name).read_bytes()) for name in BESIDE if (directory / name).exists()}
    return {**result, "checksums": {**files, "result.json": _digest_of({**result, "checksums": files})}}


def is_whole(result: dict[str, Any]) -> bool:
    """Return whether a result is as it was sealed; true for those of versions that sealed none."""
    if "checksums" not in result:
        return True
    if not isinstance(result["checksums"], dict):
        return False
    files = dict(result["checksums"])
    own = files.pop("result.json", None)
    return bool(own == _digest_of({**result, "checksums": files}))


def check_file(path: pathlib.Path, result: dict[str, Any]) -> None:
    """Make sure that a file of an ended run is the one that the run left.

    Args:
        path: Its config.yaml or metrics.csv.
        result: What its result.json holds, as a whole.

    Raises:
        ValueError: If it is another one, or missing.
        OSError: If it cannot be read.
    """
    expected = result.get("checksums", {}).get(path.name)
    if expected is None:
        return
    if not path.exists():
        fault = "is missing"
    elif _digest(read_text(path).encode()) != expected:
        fault = "is damaged: its checksum is not the one in result.json"
    else:
        return
    raise ValueError(
        f"{path.name} {fault}; copy it anew, or where the checkpoint is delete result.json and give the "
        "command of the run again, which makes both anew from it"
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of(record: dict[str, Any]) -> str:
    return _digest(json.dumps(record, sort_keys=True).encode())
