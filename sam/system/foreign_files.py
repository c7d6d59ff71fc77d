"""Files from elsewhere, read so that none stops a program or fills its memory. Imports no torch."""

import json
import mmap
import os
import pathlib
import zipfile
from collections.abc import Iterable
from typing import Any, BinaryIO

import yaml

# The metrics of 70,000 epochs take so much.
MAX_TEXT_BYTES = 2**24
# The config of a run takes 3 kB.
MAX_CONFIG_BYTES = 2**16
# The files of a run have at most 4 levels. Some parsers recurse in C, where Python counts no depth.
MAX_DEPTH = 100
# The labels of every training image of ImageNet take 10 MB.
MAX_ARRAY_BYTES = 2**28
TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"
ZIP_START = b"PK\x03\x04"
# The parser in C, where this installation of yaml has it: ten times as fast.
YAML_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def open_regular(path: str | pathlib.Path) -> BinaryIO:
    """Open a file, or what a link leads to, but no pipe, on which a reader waits, and no device.

    Raises:
        OSError: If it is not there or cannot be opened.
        ValueError: If it is no file.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("it is no regular file")
    return open(path, "rb")


def read_text(path: str | pathlib.Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a text in UTF-8.

    Raises:
        OSError: If the file is not there or cannot be read.
        ValueError: If it is no regular file, longer than that, or no text.
    """
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is longer than {max_bytes} bytes")
    return content.decode("utf-8")


def read_json(path: str | pathlib.Path) -> Any:
    """Read a file of JSON.

    Raises:
        OSError: If the file is not there or cannot be read.
        ValueError: If it is no regular file, too long, no JSON, or nested deeper than 100 levels.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    if text.count("[") + text.count("{") <= MAX_DEPTH:  # most files, without a look at each of their values
        return value
    level, depth = [value], 0
    while level := [item for holder in level for item in _items(holder)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(TOO_DEEP)
    return value


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def read_config_text(path: str | pathlib.Path) -> str:
    """Read the YAML of a run's config, and refuse what a run does not write and a parser may not survive.

    A few lines with aliases can stand for billions. A text of 60 kB can be a reference that takes a minute to
    parse, or a list so deep that the parser in C ends the process. Events are made one by one, without
    recursion.

    Raises:
        OSError: If the file is not there or cannot be read.
        ValueError: If it is no regular file, too long, no YAML, nested too deep, or has an alias or a
            reference.
    """
    text = read_text(path, MAX_CONFIG_BYTES)
    try:
        _check_events(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    return text


def _check_events(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=YAML_PARSER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(TOO_DEEP)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias (*), which the config of a run has not")
        if isinstance(event, yaml.ScalarEvent):
            refuse_reference(event.value)


def refuse_reference(text: str) -> None:
    """Make sure that a text of a run's config has no reference, which OmegaConf would resolve.

    Raises:
        ValueError: If it has one.
    """
    if "${" in text:
        found = text[text.index("${") :][:80]
        raise ValueError(f"it has a reference, {found}, where a run has a value")


def check_arrays(path: str | pathlib.Path, max_bytes: int = MAX_ARRAY_BYTES) -> None:
    """Make sure that the arrays of a .npz file fit into memory; a file of another kind is as large as it is.

    Raises:
        OSError: If it is not there or cannot be read.
        ValueError: If it is no regular file or holds more.
        zipfile.BadZipFile: If it is damaged.
    """
    with open_regular(path) as file:
        if file.read(len(ZIP_START)) == ZIP_START:
            _check_size(zipfile.ZipFile(file).infolist(), max_bytes)


def check_torch_file(path: str | pathlib.Path) -> None:
    """Make sure that a file of torch takes no more memory than it is long.

    torch.load(weights_only=True) runs no code, but unpacks what is compressed, and calls bytearray(n), which
    fills n bytes. torch.save() compresses nothing, and writes no such call for tensors and numbers.

    Raises:
        OSError: If it is not there or cannot be read.
        ValueError: If it is no regular file, empty, or larger than it looks.
        zipfile.BadZipFile: If it is damaged.
    """
    with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"bytearray") != -1:
            raise ValueError("it holds a bytearray, which is neither a tensor nor a number")
        if content[: len(ZIP_START)] != ZIP_START:
            return
        entries = zipfile.ZipFile(file).infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed, which no file that torch writes is")
        _check_size(entries, len(content))


def _check_size(entries: Iterable[zipfile.ZipInfo], max_bytes: int) -> None:
    claimed = sum(entry.file_size for entry in entries)
    if claimed > max_bytes:
        raise ValueError(f"it claims to hold {claimed} bytes, more than the {max_bytes} that it may")


def find_link(directory: pathlib.Path) -> pathlib.Path | None:
    """Return a link in a run directory, through which a file elsewhere would be written; None without one.

    Args:
        directory: It may be a link itself.
    """
    for folder in (directory, directory / "analysis", directory / "tensorboard"):
        for path in folder.iterdir() if folder.is_dir() else []:
            if path.is_symlink():
                return path
    return None
