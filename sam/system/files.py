"""Files that are there as a whole or not at all, and errors that say which file they are about."""

import json
import math
import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any


@contextmanager
def replaced(path: pathlib.Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing so that whoever looks at its place sees all of it or the one before.

    Args:
        path: Its place.
        mode: "w" for text, "wb" for bytes.

    Raises:
        OSError: If the disk refuses; it names the file, and the one before is untouched.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with (
            naming(unfinished),
            open(unfinished, mode, encoding=None if "b" in mode else "utf-8") as file,
        ):
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()  # half a file would only fill a disk that is full
        raise


@contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Add a file to an error that does not say which it is about, such as that of a full disk.

    Raises:
        OSError: The same, with the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a file so that whoever looks sees all of it or the one before."""
    with replaced(path) as file:
        file.write(text)


def write_json(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Write a record, with null for numbers that are not finite, which JSON does not have."""
    write_text(path, json.dumps(finite_only(record), indent=2, allow_nan=False) + "\n")


def finite_only(value: Any) -> Any:
    """Return nested containers with None in the place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite_only(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite_only(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
