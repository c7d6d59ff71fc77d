"""Reads what evaluate.py left in a run directory about confidence: evaluation-<split>.json."""

from pathlib import Path
from typing import NamedTuple

from sam.record.values import number
from sam.system.foreign_files import read_json


class Bin(NamedTuple):
    """The images of an interval of confidence.

    Attributes:
        num_images: How many, at least 1.
        confidence_pct: Their mean largest probability.
        accuracy_pct: The share that is classified rightly.
    """

    num_images: int
    confidence_pct: float
    accuracy_pct: float


class Calibration(NamedTuple):
    """How a run's confidence goes with its accuracy.

    Attributes:
        error_pct: Expected calibration error: |accuracy - confidence|, the mean over images of their bins'.
        bins: By confidence.
    """

    error_pct: float
    bins: tuple[Bin, ...]


def read_calibration(directory: Path, split: str, epochs: int) -> Calibration | None:
    """Read the calibration of a run after its last epoch.

    Args:
        directory: Of the run.
        split: "test", "validation", "train" or "train_clean".
        epochs: How many the run was trained for.

    Returns:
        The calibration; None where the run has not been evaluated since its last epoch, or only by a version
        without bins, or the file is broken.
    """
    try:
        record = read_json(directory / f"evaluation-{split}.json")
        bins = [_read_bin(entry) for entry in record["calibration_bins"]]
        error_pct = _number(record["calibration_error_pct"])
        # As evaluate.py words it; after part of an epoch, "and 3 steps" follow.
        is_final = record["after"] == f"{epochs} epochs"
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ordered = sorted(bins, key=lambda entry: entry.confidence_pct)
    return Calibration(error_pct, tuple(ordered)) if ordered and is_final else None


def _read_bin(entry: dict[str, object]) -> Bin:
    num_images, confidence_pct, accuracy_pct = (_number(entry[name]) for name in Bin._fields)
    return Bin(int(num_images), confidence_pct, accuracy_pct)


def _number(value: object) -> float:
    found = number(value)
    if found is None:
        raise ValueError(f"{value!r} is no number")
    return found
