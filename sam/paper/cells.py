"""The conditions of the paper's tables: printed errors, overrides that repeat them, departures of runs.

results/paper/README.md explains the columns of the file. The names of dataset, model, augmentation and method
decide to which cells a run belongs. Its hyperparameters may differ; the comparison then lists these
departures next to the numbers.
"""

import csv
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sam.paper.conditions import Condition
from sam.record.values import DEFAULTS, RULES, values_of

CELLS = Path(__file__).resolve().parents[2] / "results" / "paper" / "cells.csv"
COLUMNS = (
    "cell table dataset model epochs augmentation method overrides alternatives labels_from seeds "
    "top1_error_pct top1_ci95 top5_error_pct top5_ci95 printed released_code assumed doubt"
).split()
ORIGINS = ("printed", "released_code", "assumed")
NAMES = ("dataset.name", "model.name", "augmentation.name", "optimizer.name")
# The paper's name of the model fits both; we use the first, so the other counts as a departure.
OTHER_MODELS = {"resnet32_wide": "resnet32"}
# A run that differs from the cell in one of these keys (no value: the default) is another condition.
CONDITION_KEYS = (
    "dataset.validation",
    "dataset.label_noise",
    "dataset.label_noise_kind",
    "dataset.label_file",
    "model.freeze_statistics",
    "optimizer.base",
    "optimizer.rule",
    "optimizer.adaptive",
    "optimizer.adaptive_for",
    "optimizer.p",
    "optimizer.direction",
    "optimizer.ascent_steps",
    "optimizer.second_order",
    "optimizer.perturb",
    "optimizer.ascent_fraction",
    "optimizer.interval",
    "optimizer.start",
    "optimizer.stop",
)
# If a run differs in one of these keys, or in a key that the cell names, it is the same condition with a
# departure.
DEPARTURE_KEYS = (
    "dataset.num_train",
    "dataset.subset_seed",
    "dataset.num_test",
    "dataset.extra",
    "dataset.verify",
    "dataset.repeats",
    "dataset.image_size",
    "model.input_size",
    "model.batch_norm_decay",
    "model.batch_norm",
    "model.dropout",
    "model.skip",
    "model.alpha",
    "augmentation.mixup_alpha",
    "optimizer.warmup_epochs",
    "optimizer.true_gradient",
    "optimizer.replay",
    "optimizer.sync_ascent",
    "ema_decay",
    "runtime.precision",
)


class Printed(NamedTuple):
    """A printed error.

    Attributes:
        error_pct: The printed error, in percent.
        ci95_points: Half-width of its 95 % interval, in percentage points; None if none is printed.
        text: Error and interval, as printed.
    """

    error_pct: float
    ci95_points: float | None
    text: str


class Departure(NamedTuple):
    """A key in which a run differs from a cell, with the run's value and the values that the cell allows."""

    key: str
    value: Any
    allowed: tuple[Any, ...]

    def __str__(self) -> str:
        allowed = " or ".join(_text(value) for value in self.allowed)
        return f"{self.key}={_text(self.value)} ({allowed})"


class Match(NamedTuple):
    """A cell that a run repeats, and the run's departures from it; () if there are none."""

    cell: "Cell"
    departures: tuple[Departure, ...]


@dataclass(frozen=True)
class Cell(Condition):
    """One condition of one table of the paper.

    Attributes:
        words: Dataset, model, epochs, augmentation and method, as printed in the table.
        top1, top5: The printed errors; top5 is None except for ImageNet.
        values: The value of each key of the condition, by dotted name.
        origins: The origin of each value: printed, released_code or assumed.
        doubt: Why the printed number is doubtful; empty if it is not.
    """

    words: tuple[str, ...]
    top1: Printed
    top5: Printed | None
    values: Mapping[str, Any]
    origins: Mapping[str, str]
    doubt: str

    @cached_property
    def choices(self) -> Mapping[str, tuple[Any, ...]]:
        """The values that the alternatives give to each key that they set."""
        pairs = [_parse(text) for text in self.alternatives]
        return {key: tuple(value for name, value in pairs if name == key) for key, _ in pairs}

    def allowed(self, key: str) -> tuple[Any, ...]:
        """Return the values of a key that the cell allows: one, or one for each alternative."""
        return self.choices.get(key) or (self.values.get(key, DEFAULTS[key]),)

    def alternative_of(self, values: Mapping[str, Any]) -> str:
        """Return the alternative that a run with these values belongs to; "" if there is none."""
        return next((text for text in self.alternatives if _holds(text, values)), "")


def read_cells(path: Path) -> list[Cell]:
    """Read every condition.

    Args:
        path: A file such as results/paper/cells.csv.

    Raises:
        ValueError: If a column is missing, or a field is not valid for its column.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restval="")
        missing = set(COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(
                f"{path} lacks the columns {', '.join(sorted(missing))}; its README names them all"
            )
        cells = []
        for row in reader:
            try:
                cells.append(_parse_cell(row))
            except ValueError as error:
                where = f"{path}, line {reader.line_num}"
                raise ValueError(f"{where}: {error}; its README explains the columns") from error
    return cells


def parse_interval(text: str) -> float | None:
    """Read the half-width of an interval such as "0.1", "<0.1" (read as 0.1), "<0.0" and "" (None).

    Raises:
        ValueError: If the text after an optional "<" is not a number.
    """
    text = text.strip()
    try:
        return float(text.removeprefix("<")) or None if text else None
    except ValueError:
        raise ValueError(f"ci95={text!r} is neither empty, a number, nor < and a number") from None


def closest_cells(
    config: Mapping[str, Any], cells: Iterable[Cell], labels_from: Mapping[str, Any] | None = None
) -> list[Match]:
    """Find the cells that a run repeats most closely.

    Args:
        config: The resolved config of the run.
        cells: Conditions.
        labels_from: The config of the run that predicted the labels; None if there is none or it is unknown.

    Returns:
        All cells without departures. If there are none, the cell with the fewest departures (in a tie, the
        first). Empty if the run is not a condition of the paper.
    """
    values = values_of(config)
    source = None if labels_from is None else values_of(labels_from)
    found = [Match(cell, _departures(cell, values)) for cell in cells if _is_condition(cell, values, source)]
    exact = [match for match in found if not match.departures]
    return exact or sorted(found, key=lambda match: len(match.departures))[:1]


def _departures(cell: Cell, values: Mapping[str, Any]) -> tuple[Departure, ...]:
    """Return the keys in which a run differs from a cell, in the order of the cell's keys."""
    return tuple(
        Departure(key, values[key], cell.allowed(key))
        for key in dict.fromkeys([*cell.values, *cell.choices, *DEPARTURE_KEYS])
        if _reads(values, key) and values[key] not in cell.allowed(key)
    )


def _is_condition(cell: Cell, values: Mapping[str, Any], source: Mapping[str, Any] | None) -> bool:
    """Return whether a run is of a cell's condition, by its names, weights, labels and CONDITION_KEYS."""
    if any(values[key] not in (cell.values[key], OTHER_MODELS.get(cell.values[key])) for key in NAMES):
        return False
    # dataset.reader=synthetic has random images, also under the name of a real dataset.
    if values["dataset.reader"] == "synthetic":
        return False
    # Fine-tuning and training from scratch are two conditions; weights from another file are a departure.
    if (values["model.weights"] is None) != (cell.allowed("model.weights") == (None,)):
        return False
    if any(_reads(values, key) and values[key] not in cell.allowed(key) for key in CONDITION_KEYS):
        return False
    if bool(cell.labels_from) != (values["dataset.relabel_from"] is not None):
        return False
    return not cell.labels_from or (source is not None and _holds(cell.labels_from, source))


def _holds(override: str, values: Mapping[str, Any]) -> bool:
    key, value = _parse(override)
    return bool(values[key] == value)


def _reads(values: Mapping[str, Any], key: str) -> bool:
    return values["optimizer.name"] == "sam" or not RULES[key].get("sam_only")


def _parse_cell(row: Mapping[str, str]) -> Cell:
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin in ORIGINS:
        pairs = dict(_parse(pair) for pair in row[origin].split())
        if unknown := [key for key in pairs if key not in DEFAULTS]:
            raise ValueError(f"{origin} has {unknown[0]}, which is not a key of a run")
        if twice := sorted(values.keys() & pairs.keys()):
            raise ValueError(f"{origin} repeats {twice[0]}, which another origin column has too")
        values |= pairs
        origins |= dict.fromkeys(pairs, origin)
    if missing := [key for key in NAMES if key not in values]:
        raise ValueError(f"{missing[0]} is missing in printed, released_code and assumed")
    alternatives = tuple(text.strip() for text in row["alternatives"].split("|") if text.strip())
    for text in (*alternatives, row["labels_from"] or "seed=0"):
        if (key := _parse(text)[0]) not in DEFAULTS:
            raise ValueError(f"{text} sets {key}, which is not a key of a run")
    top1 = _printed(row["top1_error_pct"], row["top1_ci95"])
    if top1 is None:
        raise ValueError("top1_error_pct is empty")
    return Cell(
        name=row["cell"],
        table=row["table"],
        words=tuple(row[column] for column in ("dataset", "model", "epochs", "augmentation", "method")),
        overrides=tuple(row["overrides"].split()),
        alternatives=alternatives,
        labels_from=row["labels_from"],
        num_seeds=int(row["seeds"]),
        top1=top1,
        top5=_printed(row["top5_error_pct"], row["top5_ci95"]),
        values=values,
        origins=origins,
        doubt=row["doubt"],
    )


def _printed(value: str, ci95: str) -> Printed | None:
    text = f"{value} ± {ci95}" if ci95 else value
    return Printed(float(value), parse_interval(ci95), text) if value else None


@cache
def _parse(override: str) -> tuple[str, Any]:
    """Read KEY=VALUE like the config: a value may be a number, a boolean, null or a word.

    The table has thousands of pairs, but only hundreds of different ones.
    """
    key, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"{override!r} is not KEY=VALUE")
    value = yaml.safe_load(text)
    if isinstance(value, str):
        # YAML 1.1 reads 1e-05 and inf as words.
        with suppress(ValueError):
            value = float(value)
    return key, value


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
