"""The one reader of run directories: finds them below the given folders and reads their files.

Nothing it reads is trusted: a file that is broken makes its run a `Problem`, never an exception.
"""

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sam.report.config_file import load_config

STATUSES = ("complete", "diverged")


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        directory: Where it was found.
        config: The resolved config, as nested dictionaries.
        metrics: One dictionary per epoch, empty cells left out.
        result: The content of result.json; None where the run has not ended.
    """

    directory: Path
    config: dict[str, Any]
    metrics: list[dict[str, float]]
    result: dict[str, Any] | None

    @property
    def last_epoch(self) -> int:
        """The last epoch with metrics; 0 where there is none."""
        return int(max((row["epoch"] for row in self.metrics), default=0))


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
            if "config.yaml" in files:
                subfolders.clear()
                yield Path(folder)
            # Hydra keeps a config.yaml in a hidden folder, which is no run.
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))


def _read_run(directory: Path) -> Run:
    return Run(
        directory=directory,
        config=read_config(directory / "config.yaml"),
        metrics=_read_metrics(directory / "metrics.csv"),
        result=_read_result(directory / "result.json"),
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
    if not isinstance(config.get("epochs"), int):
        raise ValueError("config.yaml has no whole number of epochs, so this is no run")
    return {str(key): value for key, value in config.items()}


def _read_metrics(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
        header = rows.pop(0) if rows else []
        # The trainer may be writing its last row at this moment.
        if rows and len(rows[-1]) < len(header):
            rows.pop()
        return [_read_row(header, row) for row in rows]
    except (csv.Error, ValueError) as error:
        raise ValueError(f"metrics.csv cannot be read: {error}") from error


def _read_row(header: list[str], row: list[str]) -> dict[str, float]:
    if len(row) != len(header):
        raise ValueError(f"a row has {len(row)} cells, its header {len(header)}")
    values = {name: float(cell) for name, cell in zip(header, row, strict=True) if cell.strip()}
    if number(values.get("epoch")) is None:
        raise ValueError("a row names no epoch")
    return values


def _read_result(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
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
    return result
