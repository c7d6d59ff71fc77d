"""Reads the content of figures, for the tests of the functions that draw."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sam.record.reader import find_runs
from sam.report.groups import Group, group_runs


def groups_of(root: Path) -> list[Group]:
    """Return the conditions below a folder."""
    return group_runs(find_runs([root])[0])[0]


def caption_of(figure: Figure) -> str:
    """Return the text below the panels in one line with plain spaces."""
    return " ".join(figure.get_supxlabel().split())


def lines_of(axis: Any) -> dict[str, list[tuple[float, float, float | None]]]:
    """Return (x, mean, half-width or None) of each point of the lines with error bars, by their labels."""
    lines = {}
    for container in axis.containers:
        line, _, (bars,) = container.lines
        points = []
        for x, y, segment in zip(line.get_xdata(), line.get_ydata(), bars.get_segments(), strict=True):
            half_width = (segment[1][1] - segment[0][1]) / 2 if len(segment) else np.nan
            points.append((float(x), float(y), None if np.isnan(half_width) else float(half_width)))
        lines[container.get_label()] = points
    return lines
