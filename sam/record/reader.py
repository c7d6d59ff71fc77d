"""Finds the run directories below the given folders and reads them.

It trusts no file: a run with a broken file becomes a `Problem`, and never raises an exception.
"""

import csv
import io
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from sam.record.checksums import check_file
from sam.record.run_files import config_file, load_config, load_result
from sam.system.foreign_files import read_text

MAX_ROWS = 100_000
# No run has more, and matplotlib fails with numbers that do not fit into an integer.
MAX_EPOCHS = 10**9


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        directory: The run directory.
        config: The resolved config, as nested dictionaries; ended runs of one condition share them.
        last_row: The last row of metrics.csv without empty cells; empty if there are no metrics.
        last_epoch: The last epoch with metrics; 0 if there are no metrics.
        result: The content of result.json without the config; None if the run has not ended.
    """

    directory: Path
    config: dict[str, Any]
    last_row: dict[str, float]
    last_epoch: int
    result: dict[str, Any] | None

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv: one dictionary per epoch, without empty cells.

        The file is read on first use, since the metrics of thousands of runs may not fit into memory.

        Raises:
            ValueError: If the file has become unreadable since `find_runs` checked it.
        """
        header, rows = _read_table(self.directory / "metrics.csv")
        return [_numbers(header, row) for row in rows]


class Problem(NamedTuple):
    """A file or folder that could not be read.

    Attributes:
        path: The file or folder.
        reason: What is wrong with it, in one line.
    """

    path: Path
    reason: str


def find_runs(roots: Iterable[Path]) -> tuple[list[Run], list[Problem]]:
    """Read every run directory at or below some folders.

    A folder with a config.yaml or a result.json is a run directory. Folders inside a run directory and hidden
    folders are not searched. A run directory that is reached twice, through a link or two roots, counts once.

    Args:
        roots: Folders to search, in this order; the folders below each are searched in order of their names.

    Returns:
        The runs, and a problem for each folder that could not be read.
    """
    runs: list[Run] = []
    problems: list[Problem] = []
    for directory in _run_directories(roots, problems):
        try:
            runs.append(_read_run(directory))
        except (OSError, ValueError) as error:
            problems.append(Problem(directory, " ".join(str(error).split())))
    return runs, problems


def _run_directories(roots: Iterable[Path], problems: list[Problem]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        problems.append(Problem(Path(error.filename), error.strerror or str(error)))

    visited: set[str] = set()
    for root in roots:
        for folder, subfolders, files in os.walk(root, followlinks=True, onerror=unreadable):
            # Comparing real paths ends loops of links.
            real = os.path.realpath(folder)
            if real in visited:
                subfolders.clear()
                continue
            visited.add(real)
            # A run that has lost its config.yaml must still be reported.
            if "config.yaml" in files or "result.json" in files:
                subfolders.clear()
                yield Path(folder)
            # Hydra keeps a config.yaml in the hidden folder .hydra, which is not a run.
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))


def _read_run(directory: Path) -> Run:
    result = load_result(directory)
    check_file(directory / "config.yaml", result or {})
    config = _read_config(directory, result)
    metrics = directory / "metrics.csv"
    header, rows = _read_table(metrics, check_file(metrics, result or {}))
    return Run(
        directory=directory,
        config=config,
        last_row=_numbers(header, rows[-1]) if rows else {},
        last_epoch=int(max(_epochs(header, rows), default=0)),
        result=None
        if result is None
        else {name: value for name, value in result.items() if name != "config"},
    )


def read_config(directory: Path) -> dict[str, Any]:
    """Return the resolved config of a run, as nested dictionaries.

    Args:
        directory: The run directory.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a file is damaged, or this is not a run directory.
    """
    return _read_config(directory, load_result(directory))


def _read_config(directory: Path, result: dict[str, Any] | None) -> dict[str, Any]:
    name = config_file(result)
    try:
        config = load_config(directory, result)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{name} holds no keys, so this is not a run")
    for group in ("dataset", "model", "augmentation", "optimizer"):
        section = config.get(group)
        if not isinstance(section, dict) or not isinstance(section.get("name"), str):
            raise ValueError(f"{name} has no {group}.name, so this is not a run")
    if not isinstance(config.get("epochs"), int) or not 0 <= config["epochs"] <= MAX_EPOCHS:
        raise ValueError(f"{name} has no valid number of epochs, so this is not a run")
    return {str(key): value for key, value in config.items()}


def _read_table(path: Path, text: str | None = None) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of metrics.csv as text; each cell is checked to be a number or empty.

    Args:
        path: The file.
        text: Its content, if it has been read before.
    """
    if text is None and not path.exists():
        return [], []
    try:
        text = read_text(path) if text is None else text
        reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
        rows = list(islice(filter(None, reader), MAX_ROWS + 1))
        if len(rows) > MAX_ROWS:
            raise ValueError(f"it has more than {MAX_ROWS} rows")
        header = rows.pop(0) if rows else []
        # The trainer may be writing the last row at this moment.
        if rows and len(rows[-1]) < len(header):
            rows.pop()
        _check_rows(header, rows)
        return header, rows
    except (csv.Error, ValueError) as error:
        raise ValueError(f"metrics.csv cannot be read: {error}") from error


def _check_rows(header: list[str], rows: list[list[str]]) -> None:
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, but the header has {len(header)}")
    # Ten thousand runs have millions of rows, so this uses functions that are written in C.
    deque(map(float, filter(None, chain.from_iterable(rows))), maxlen=0)
    if rows and not all(0 <= epoch <= MAX_EPOCHS for epoch in _epochs(header, rows)):
        raise ValueError(f"a row has no epoch from 0 to {MAX_EPOCHS}")


def _epochs(header: list[str], rows: list[list[str]]) -> list[float]:
    """Return the epoch of each row; nan for a row without one."""
    if "epoch" not in header:
        return [math.nan] * len(rows)
    return [float(cell or "nan") for cell in map(itemgetter(header.index("epoch")), rows)]


def _numbers(header: list[str], row: list[str]) -> dict[str, float]:
    """Return the non-empty cells of a row, by column name."""
    return {name: float(cell) for name, cell in zip(header, row, strict=True) if cell}
