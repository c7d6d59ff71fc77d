"""Files that are there as a whole or not at all, and errors that say which file they are about."""

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
