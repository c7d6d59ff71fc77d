"""Reads the calibration of a run from evaluation-<split>.json, which evaluate.py writes."""

from pathlib import Path
from typing import NamedTuple

from sam.record.values import number
from sam.system.foreign_files import read_json


class Bin(NamedTuple):
    """The images whose confidence lies in one interval.

    Attributes:
        num_images: Number of images, at least 1.
        confidence_pct: Mean of their largest predicted probability.
        accuracy_pct: Share of them that is classified correctly.
    """

    num_images: int
    confidence_pct: float
    accuracy_pct: float


class Calibration(NamedTuple):
    """The confidence of a network compared with its accuracy.

    Attributes:
        error_pct: Expected calibration error: mean over the images of |accuracy - confidence| of their bin.
        bins: Sorted by confidence.
    """

    error_pct: float
    bins: tuple[Bin, ...]


def read_calibration(directory: Path, split: str, epochs: int) -> Calibration | None:
    """Read the calibration of a run after its last epoch.

    Args:
        directory: The run directory.
        split: "test", "validation", "train" or "train_clean".
        epochs: Number of epochs of the whole run.

    Returns:
        The calibration. None if the run was not evaluated after its last epoch, if an older version without
        bins evaluated it, or if the file is broken.
    """
    try:
        record = read_json(directory / f"evaluation-{split}.json")
        bins = [_read_bin(entry) for entry in record["calibration_bins"]]
        error_pct = _number(record["calibration_error_pct"])
        # evaluate.py writes this text; after part of an epoch it adds, for example, "and 3 steps".
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
        raise ValueError(f"{value!r} is not a number")
    return found
