"""Files that are replaced in one step, and errors that name their file."""

import json
import math
import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any


@contextmanager
def replaced(path: pathlib.Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing; it replaces the old file in one step, so that no reader sees half of it.

    Args:
        path: The file to replace or create.
        mode: "w" for text, "wb" for bytes.

    Raises:
        OSError: If the disk refuses. The error names the file, and the old file is unchanged.
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
            unfinished.unlink()  # the disk may be full, and half a file is of no use
        raise


@contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Add the file to an error that does not name one, such as the error of a full disk.

    Raises:
        OSError: The same error, with the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def write_text(path: pathlib.Path, text: str) -> None:
    """Replace a file in one step, so that no reader sees half of it."""
    with replaced(path) as file:
        file.write(text)


def write_json(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Write a record as JSON; numbers that are not finite become null, since JSON does not have them."""
    write_text(path, json.dumps(finite_only(record), indent=2, allow_nan=False) + "\n")


def finite_only(value: Any) -> Any:
    """Return nested containers in which None replaces numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite_only(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite_only(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
