"""Finds the run directories below the given folders and reads each as a whole.

Nothing it reads is trusted: a file that is broken makes its run a `Problem`, never an exception.
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

from sam.record.checksums import BESIDE, check_file
from sam.record.run_files import config_file, load_config, load_result
from sam.system.foreign_files import read_text

MAX_ROWS = 100_000
# No run has more; drawing would fail beyond the range of whole numbers.
MAX_EPOCHS = 10**9


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        directory: Where it was found.
        config: The resolved config, as nested dictionaries; ended runs of one condition share them.
        last_row: The last row of metrics.csv, empty cells left out; empty where there is none.
        last_epoch: The last epoch with metrics; 0 where there is none.
        result: The content of result.json without the config; None where the run has not ended.
    """

    directory: Path
    config: dict[str, Any]
    last_row: dict[str, float]
    last_epoch: int
    result: dict[str, Any] | None

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """One dictionary per epoch, empty cells left out.

        Read again when first asked for, since those of thousands of runs are more than memory may hold.

        Raises:
            ValueError: If the file, which was sound, is so no longer.
        """
        header, rows = _read_table(self.directory / "metrics.csv")
        return [_numbers(header, row) for row in rows]


class Problem(NamedTuple):
    """A folder that could not be read.

    Attributes:
        path: The folder.
        reason: What is wrong with it, in one line.
    """

    path: Path
    reason: str


def find_runs(roots: Iterable[Path]) -> tuple[list[Run], list[Problem]]:
    """Read every run directory at or below some folders.

    A run directory is a folder with a config.yaml; folders inside of it, and hidden ones, are not
    searched. One that is reached twice, through a link or through two roots, counts once.

    Args:
        roots: Folders to search, in this order; below each, the order is that of the names.

    Returns:
        The runs, and the folders that could not be read.
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
            # The real path ends loops of links.
            if os.path.realpath(folder) in visited:
                subfolders.clear()
                continue
            visited.add(os.path.realpath(folder))
            # Of a run that has lost its config, the result is still to be told of.
            if "config.yaml" in files or "result.json" in files:
                subfolders.clear()
                yield Path(folder)
            # Hydra keeps a config.yaml in a hidden folder, which is no run.
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))


def _read_run(directory: Path) -> Run:
    result = load_result(directory)
    for name in BESIDE:
        check_file(directory / name, result or {})
    config = _read_config(directory, result)
    header, rows = _read_table(directory / "metrics.csv")
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
        ValueError: If a file is damaged, or it is no run directory.
    """
    return _read_config(directory, load_result(directory))


def _read_config(directory: Path, result: dict[str, Any] | None) -> dict[str, Any]:
    name = config_file(result)
    try:
        config = load_config(directory, result)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{name} holds no keys, so this is no run")
    for group in ("dataset", "model", "augmentation", "optimizer"):
        section = config.get(group)
        if not isinstance(section, dict) or not isinstance(section.get("name"), str):
            raise ValueError(f"{name} has no {group}.name, so this is no run")
    if not isinstance(config.get("epochs"), int) or not 0 <= config["epochs"] <= MAX_EPOCHS:
        raise ValueError(f"{name} has no whole number of epochs, so this is no run")
    return {str(key): value for key, value in config.items()}


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of metrics.csv as they stand there, all known to be numbers or empty."""
    if not path.exists():
        return [], []
    try:
        reader = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
        rows = list(islice(filter(None, reader), MAX_ROWS + 1))
        if len(rows) > MAX_ROWS:
            raise ValueError(f"it has more than {MAX_ROWS} rows")
        header = rows.pop(0) if rows else []
        # The trainer may be writing its last row at this moment.
        if rows and len(rows[-1]) < len(header):
            rows.pop()
        _check_rows(header, rows)
        return header, rows
    except (csv.Error, ValueError) as error:
        raise ValueError(f"metrics.csv cannot be read: {error}") from error


def _check_rows(header: list[str], rows: list[list[str]]) -> None:
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, its header {len(header)}")
    # Ten thousand runs have millions of rows: all of this is left to C.
    deque(map(float, filter(None, chain.from_iterable(rows))), maxlen=0)
    if rows and not all(0 <= epoch <= MAX_EPOCHS for epoch in _epochs(header, rows)):
        raise ValueError("a row names no epoch")


def _epochs(header: list[str], rows: list[list[str]]) -> list[float]:
    """Return the epoch of each row, nan where it names none."""
    if "epoch" not in header:
        return [math.nan] * len(rows)
    return [float(cell or "nan") for cell in map(itemgetter(header.index("epoch")), rows)]


def _numbers(header: list[str], row: list[str]) -> dict[str, float]:
    """Return the cells of a row that are not empty, by column."""
    return {name: float(cell) for name, cell in zip(header, row, strict=True) if cell}
