"""The one reader of run directories: finds them below the given folders and reads their files.

Nothing it reads is trusted: a file that is broken makes its run a `Problem`, never an exception.
"""

import csv
import io
import json
import math
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from sam.record.checksums import BESIDE, check_file, is_whole
from sam.record.config_file import load_config
from sam.system.foreign_files import read_text

STATUSES = ("complete", "diverged")
MAX_ROWS = 100_000
# No run has more; drawing would fail beyond the range of whole numbers.
MAX_EPOCHS = 10**9


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        directory: Where it was found.
        config: The resolved config, as nested dictionaries; runs that differ in their seed alone share them.
        last_row: The last row of metrics.csv, empty cells left out; empty where there is none.
        last_epoch: The last epoch with metrics; 0 where there is none.
        result: The content of result.json; None where the run has not ended.
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


def number(value: object) -> float | None:
    """Return a value as a float where it is a finite number, else None.

    Args:
        value: Anything that json or yaml can hold.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


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
    result = _read_result(directory / "result.json")
    for name in BESIDE:
        check_file(directory / name, result or {})
    config = read_config(directory / "config.yaml")
    header, rows = _read_table(directory / "metrics.csv")
    return Run(
        directory=directory,
        config=config,
        last_row=_numbers(header, rows[-1]) if rows else {},
        last_epoch=int(max(_epochs(header, rows), default=0)),
        result=result,
    )


def read_config(path: Path) -> dict[str, Any]:
    """Read the config of a run.

    Args:
        path: A config.yaml.

    Raises:
        ValueError: If it cannot be read, or is not that of a run.
    """
    try:
        config = load_config(path)
    # Faults of yaml, of what it calls and of the file system have no other base class in common.
    except Exception as error:
        raise ValueError(f"config.yaml cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ValueError("config.yaml holds no keys, so this is no run")
    for group in ("dataset", "model", "augmentation", "optimizer"):
        section = config.get(group)
        if not isinstance(section, dict) or not isinstance(section.get("name"), str):
            raise ValueError(f"config.yaml has no {group}.name, so this is no run")
    if not isinstance(config.get("epochs"), int) or not 0 <= config["epochs"] <= MAX_EPOCHS:
        raise ValueError("config.yaml has no whole number of epochs, so this is no run")
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


def _read_result(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        result = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"result.json cannot be read: {error}") from error
    if not isinstance(result, dict):
        raise ValueError("result.json holds no keys")
    if result.get("status") not in STATUSES:
        raise ValueError(f"result.json has status {result.get('status')!r}; known are {', '.join(STATUSES)}")
    if not isinstance(result.get("identity"), str) or not isinstance(result.get("seed"), int):
        raise ValueError("result.json lacks the identity or the seed of the run")
    if result["status"] == "complete" and number(result.get("test_error_pct")) is None:
        raise ValueError("result.json says complete, but test_error_pct is not a number")
    if not is_whole(result):
        raise ValueError("result.json is damaged: its checksum differs; give the command of the run again")
    return result
