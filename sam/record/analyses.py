"""Reads the analyses in a run directory: sharpness, Hessians, loss landscapes, second-order comparisons."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam.record.reader import Problem
from sam.record.values import number
from sam.system.foreign_files import check_arrays, read_json


def _text(value: float | None) -> str:
    # JSON has no infinity: write_json() makes it null.
    return "no finite number" if value is None else f"{value:.4g}"


def _sharpness(result: dict[str, Any]) -> str:
    rows = result["rows"]
    steps = min(row["ascent_steps"] for row in rows)
    rises = (f"{_text(row['loss_rise'])} (m={row['m']})" for row in rows if row["ascent_steps"] == steps)
    return f"the loss rises by {', '.join(rises)}"


def _hessian(result: dict[str, Any]) -> str:
    parts = [f"lambda_max {result['lambda_max']:.4g}"]
    if result["lambda_max_over_5"] is not None:
        parts.append(f"lambda_max / lambda_5 {result['lambda_max_over_5']:.3g}")
    trace = f"trace {result['trace']:.4g}"
    if result["trace_standard_error"] is not None:
        trace += f" (standard error {result['trace_standard_error']:.2g})"
    parts.append(trace)
    if layers := result.get("layers"):
        highest = max(layers, key=lambda layer: layer["lambda_max"])
        name = highest["name"] or "the network itself"
        parts.append(f"highest of {len(layers)} layers {highest['lambda_max']:.4g} ({name})")
    return ", ".join(parts)


def _landscape(result: dict[str, Any]) -> str:
    centre, lowest, highest = (_text(result[key]) for key in ("loss_at_centre", "lowest", "highest"))
    text = f"loss {centre} at the trained weights, {lowest} to {highest} around them"
    if shares := result.get("explained_pct"):
        text += f"; the components explain {' and '.join(f'{share:.1f} %' for share in shares)} of the path"
    # Older versions did not count these points.
    count = result.get("not_finite", 0)
    return f"{text}; not finite at {count} of {result['points']} points" if count else text


def _second_order(result: dict[str, Any]) -> str:
    cosines = [value for item in result["cosines"] if (value := number(item)) is not None]
    count = len(result["cosines"]) - len(cosines)
    if not cosines:
        return f"the cosine is not finite in any of {count} batches"
    ends = f"{min(cosines):.4f} to {max(cosines):.4f}"
    text = f"cosine {fmean(cosines):.4f}, {ends} over {len(cosines)} batches"
    return f"{text}; not finite in {count} more" if count else text


SUMMARIES = {
    "sharpness": _sharpness,
    "hessian": _hessian,
    "landscape": _landscape,
    "second_order": _second_order,
}
NAMES = tuple(SUMMARIES)


@dataclass(frozen=True)
class Analysis:
    """One analysis of a run after one epoch.

    Attributes:
        path: The JSON file. Its picture and arrays have the same name with other extensions.
        record: The content of the JSON file.
    """

    path: Path
    record: dict[str, Any]

    @property
    def name(self) -> str:
        """The kind of analysis, one of NAMES."""
        return str(self.record["analysis"])

    @property
    def epoch(self) -> int:
        """Number of epochs that the network had been trained for."""
        return int(self.record["epoch"])

    @property
    def result(self) -> dict[str, Any]:
        """The numbers that the analysis computed."""
        return dict(self.record["result"])

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the analysis, by config key."""
        return dict(self.record["settings"])

    @property
    def summary(self) -> str:
        """The main numbers in one line."""
        return SUMMARIES[self.name](self.result)

    @property
    def arrays(self) -> Path:
        """The file with the arrays; sharpness and second_order write none."""
        return self.path.with_suffix(".npz")


def read_analyses(directory: Path, name: str | None = None) -> tuple[list[Analysis], list[Problem]]:
    """Read the analyses of a run, sorted by name and epoch.

    Args:
        directory: The run directory.
        name: One of NAMES; None reads all analyses.

    Returns:
        The analyses, and a problem for each file that could not be read.
    """
    found: list[Analysis] = []
    problems: list[Problem] = []
    for path in sorted((directory / "analysis").glob(f"{name or '*'}-epoch*.json")):
        try:
            found.append(read_analysis(path))
        except (OSError, ValueError) as error:
            problems.append(Problem(path, " ".join(str(error).split())))
    return sorted(found, key=lambda analysis: (analysis.name, analysis.epoch, analysis.path)), problems


def read_analysis(path: Path) -> Analysis:
    """Read one analysis.

    Args:
        path: The JSON file of the analysis.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file does not hold an analysis.
    """
    record = read_json(path)
    if not isinstance(record, dict) or record.get("analysis") not in NAMES:
        raise ValueError("it is not an analysis")
    if number(record.get("epoch")) is None:
        raise ValueError("it has no epoch")
    if not all(isinstance(record.get(key), dict) for key in ("result", "settings")):
        raise ValueError("it lacks the result or the settings")
    return Analysis(path, record)


Array = NDArray[np.float64]


def read_arrays(analysis: Analysis, *names: str) -> list[Array]:
    """Read arrays of an analysis as float64.

    Args:
        analysis: A Hessian or a landscape.
        names: Names of the arrays; they are returned in this order.

    Raises:
        ValueError: If the file cannot be read or lacks one of the arrays.
    """
    try:
        # The arrays are written without compression, so a file that unpacks to more is not ours.
        check_arrays(analysis.arrays, analysis.arrays.stat().st_size)
        # Opened here, because numpy does not close a file that it opened and found broken.
        with analysis.arrays.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return [np.asarray(file[name], dtype=np.float64) for name in names]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{analysis.arrays} cannot be read: {reason}; run the analysis again") from error
