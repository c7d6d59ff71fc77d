"""Safe readers of files of unknown origin: no file can block a program or fill its memory. No torch."""

import json
import mmap
import os
import pathlib
import zipfile
from collections.abc import Iterable
from typing import Any, BinaryIO

import yaml

# Enough for the metrics of 70,000 epochs.
MAX_TEXT_BYTES = 2**24
# The config of a run takes 3 kB.
MAX_CONFIG_BYTES = 2**16
# The files of a run have at most 4 levels. A parser that recurses in C may crash at a depth of thousands.
MAX_DEPTH = 100
# The labels of every training image of ImageNet take 10 MB.
MAX_ARRAY_BYTES = 2**28
TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"
ZIP_START = b"PK\x03\x04"
# The parser in C is ten times as fast, but not every installation of PyYAML has it.
YAML_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def open_regular(path: str | pathlib.Path) -> BinaryIO:
    """Open a regular file or a link to one. Not a pipe or device: reading them could block for ever.

    Raises:
        OSError: If it does not exist or cannot be opened.
        ValueError: If it is not a regular file.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("it is not a regular file")
    return open(path, "rb")


def read_text(path: str | pathlib.Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a text file in UTF-8.

    Raises:
        OSError: If the file does not exist or cannot be read.
        ValueError: If it is not a regular file, is longer than max_bytes, or is not UTF-8.
    """
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is longer than {max_bytes} bytes")
    return content.decode("utf-8")


def read_json(path: str | pathlib.Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: If the file does not exist or cannot be read.
        ValueError: If it is not a regular file, is too long or too deep, or is not JSON.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    if text.count("[") + text.count("{") <= MAX_DEPTH:  # true for most files, and cheap to check
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
    """Read the YAML text of a run's config, and refuse a text that could block or crash a parser.

    A few lines with aliases can expand to billions of lines. In 60 kB, a reference can take a minute to
    parse, and a list can be so deep that the parser in C crashes the process. The check reads parser events
    one by one, without recursion.

    Raises:
        OSError: If the file does not exist or cannot be read.
        ValueError: If it is not a regular file, is too long, is not YAML, is nested too deep, or has an alias
            or a reference.
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
            raise ValueError("it has an alias (*), but the config of a run has none")
        if isinstance(event, yaml.ScalarEvent):
            refuse_reference(event.value)


def refuse_reference(text: str) -> None:
    """Make sure that a text from a run's config has no reference, which OmegaConf would resolve.

    Raises:
        ValueError: If it has a reference.
    """
    if "${" in text:
        found = text[text.index("${") :][:80]
        raise ValueError(f"it has a reference, {found}, but the config of a run has only values")


def check_arrays(path: str | pathlib.Path, max_bytes: int = MAX_ARRAY_BYTES) -> None:
    """Make sure that the arrays of a .npz file fit into memory. Other files cannot be larger than they look.

    Raises:
        OSError: If the file does not exist or cannot be read.
        ValueError: If it is not a regular file, or its arrays take more than max_bytes.
        zipfile.BadZipFile: If it is damaged.
    """
    with open_regular(path) as file:
        if file.read(len(ZIP_START)) == ZIP_START:
            _check_size(zipfile.ZipFile(file).infolist(), max_bytes)


def check_torch_file(path: str | pathlib.Path) -> None:
    """Make sure that loading a file of torch takes no more memory than the size of the file.

    torch.load(weights_only=True) runs no code. But it decompresses data, and it calls bytearray(n), which
    allocates n bytes. torch.save() does not compress, and writes no such call for tensors and numbers.

    Raises:
        OSError: If the file does not exist or cannot be read.
        ValueError: If it is not a regular file, is empty, or would take more memory.
        zipfile.BadZipFile: If it is damaged.
    """
    with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"bytearray") != -1:
            raise ValueError("it holds a bytearray, which is neither a tensor nor a number")
        if content[: len(ZIP_START)] != ZIP_START:
            return
        entries = zipfile.ZipFile(file).infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed, but torch writes no compressed files")
        _check_size(entries, len(content))


def _check_size(entries: Iterable[zipfile.ZipInfo], max_bytes: int) -> None:
    claimed = sum(entry.file_size for entry in entries)
    if claimed > max_bytes:
        raise ValueError(f"it claims to hold {claimed} bytes; allowed are {max_bytes}")


def find_link(directory: pathlib.Path) -> pathlib.Path | None:
    """Return a link in a run directory, or None. Writing through a link would change a file elsewhere.

    Args:
        directory: A run directory; it may be a link itself.
    """
    for folder in (directory, *(directory / name for name in ("analysis", "tensorboard", "weights"))):
        for path in folder.iterdir() if folder.is_dir() else []:
            if path.is_symlink():
                return path
    return None
