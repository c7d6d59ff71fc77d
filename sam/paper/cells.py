"""The conditions of the paper's tables: what each printed, how to repeat it, and how a run departs from it.

results/paper/README.md explains the columns of the file. A run belongs to the cells of its names, whatever
its hyperparameters are: where those depart, that is said beside the numbers.
"""

import csv
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sam.record.values import DEFAULTS, RULES, values_of

CELLS = Path(__file__).resolve().parents[2] / "results" / "paper" / "cells.csv"
COLUMNS = (
    "cell table dataset model epochs augmentation method overrides alternatives labels_from seeds "
    "top1_error_pct top1_ci95 top5_error_pct top5_ci95 printed released_code assumed doubt"
).split()
ORIGINS = ("printed", "released_code", "assumed")
NAMES = ("dataset.name", "model.name", "augmentation.name", "optimizer.name")
# Where the paper's word leaves two models open, and the first is taken: the other is a departure.
OTHER_MODELS = {"resnet32_wide": "resnet32"}
# A run with another value than the cell's (the default where the cell has none) is not that condition.
CONDITION_KEYS = (
    "dataset.validation",
    "dataset.label_noise",
    "dataset.label_file",
    "model.freeze_statistics",
    "optimizer.adaptive",
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
# One with another value of these is that condition, but departs from it; so do those that a cell names.
DEPARTURE_KEYS = (
    "dataset.num_train",
    "dataset.num_test",
    "dataset.extra",
    "dataset.repeats",
    "dataset.image_size",
    "model.input_size",
    "model.batch_norm",
    "model.skip",
    "model.alpha",
    "augmentation.mixup_alpha",
    "optimizer.true_gradient",
    "optimizer.replay",
    "optimizer.sync_ascent",
    "runtime.precision",
)


class Printed(NamedTuple):
    """A printed error.

    Attributes:
        error_pct: The number itself.
        ci95_points: Half-width of its 95 % interval in points; None where none is printed.
        text: Both, as printed.
    """

    error_pct: float
    ci95_points: float | None
    text: str


class Departure(NamedTuple):
    """A key in which a run differs from a cell; the value of the run, and those that the cell allows."""

    key: str
    value: Any
    allowed: tuple[Any, ...]

    def __str__(self) -> str:
        allowed = " or ".join(_text(value) for value in self.allowed)
        return f"{self.key}={_text(self.value)} ({allowed})"


class Match(NamedTuple):
    """A cell that a run repeats, and how the run departs from it; () where it does not."""

    cell: "Cell"
    departures: tuple[Departure, ...]


@dataclass(frozen=True)
class Cell:
    """One condition of one table.

    Attributes:
        name: Such as table1/cifar10/wrn_28_10_200/basic/sam.
        table: Number of the table.
        words: Dataset, model, epochs, augmentation and method, as the table has them.
        overrides: What train.py takes for it, but for seed and alternatives.
        alternatives: More overrides, of which each is run, and the best result counts; () for none.
        labels_from: Bootstrapping: the override that makes of it the run whose predictions are its labels.
        num_seeds: Over how many runs the paper's mean is, or a number like that.
        top1, top5: What is printed, as errors; top5 is None but for ImageNet.
        values: The value of each key that the condition has, by its dotted name.
        origins: Where the value is from: printed, released_code or assumed.
        doubt: Why the number itself is in doubt; empty where it is not.
    """

    name: str
    table: str
    words: tuple[str, ...]
    overrides: tuple[str, ...]
    alternatives: tuple[str, ...]
    labels_from: str
    num_seeds: int
    top1: Printed
    top5: Printed | None
    values: Mapping[str, Any]
    origins: Mapping[str, str]
    doubt: str

    @property
    def method(self) -> str:
        """The last part of the name: sgd, sam, mixup, bootstrap_sam, ..."""
        return self.name.rpartition("/")[2]

    @cached_property
    def choices(self) -> Mapping[str, tuple[Any, ...]]:
        """The values that the alternatives give to each key that they set."""
        pairs = [_parse(text) for text in self.alternatives]
        return {key: tuple(value for name, value in pairs if name == key) for key, _ in pairs}

    def allowed(self, key: str) -> tuple[Any, ...]:
        """Return the values of a key that are the cell's: one, or one of each alternative."""
        return self.choices.get(key) or (self.values.get(key, DEFAULTS[key]),)

    def alternative_of(self, values: Mapping[str, Any]) -> str:
        """Return the alternative that a run with these values takes; "" where there is none."""
        return next((text for text in self.alternatives if _holds(text, values)), "")


def read_cells(path: Path) -> list[Cell]:
    """Read every condition.

    Args:
        path: A file such as results/paper/cells.csv.

    Raises:
        ValueError: If a column is missing or a field is not what its column holds.
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
    """Read the half-width of an interval such as "0.1", "<0.1" (taken as 0.1), "<0.0" and "" (None).

    Raises:
        ValueError: If what follows an optional "<" is not a number.
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
        labels_from: The config of the run that predicted its labels, where one did and it is known.

    Returns:
        Every cell from which the run does not depart; else the one from which it departs in the fewest keys,
        the first of several; none where the run is no condition of the paper.
    """
    values = values_of(config)
    source = None if labels_from is None else values_of(labels_from)
    found = [Match(cell, _departures(cell, values)) for cell in cells if _is_condition(cell, values, source)]
    exact = [match for match in found if not match.departures]
    return exact or sorted(found, key=lambda match: len(match.departures))[:1]


def _departures(cell: Cell, values: Mapping[str, Any]) -> tuple[Departure, ...]:
    """Return the keys in which a run differs from a cell, in the order in which the cell names them."""
    return tuple(
        Departure(key, values[key], cell.allowed(key))
        for key in dict.fromkeys([*cell.values, *cell.choices, *DEPARTURE_KEYS])
        if _reads(values, key) and values[key] not in cell.allowed(key)
    )


def _is_condition(cell: Cell, values: Mapping[str, Any], source: Mapping[str, Any] | None) -> bool:
    """Say whether a run is of the kind of a cell, as told by names and by what else makes a method."""
    names = {key: (cell.values[key],) for key in NAMES}
    names["model.name"] += tuple(filter(None, [OTHER_MODELS.get(cell.values["model.name"])]))
    if any(values[key] not in allowed for key, allowed in names.items()):
        return False
    # Made-up images under the name of real ones.
    if values["dataset.reader"] == "synthetic":
        return False
    # Whether it starts from trained weights; a file of them in the place of timm's is a departure.
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
            raise ValueError(f"{origin} has {unknown[0]}, which is no key of a run")
        if twice := sorted(values.keys() & pairs.keys()):
            raise ValueError(f"{origin} repeats {twice[0]}, which has another origin too")
        values |= pairs
        origins |= dict.fromkeys(pairs, origin)
    if missing := [key for key in NAMES if key not in values]:
        raise ValueError(f"nothing says which {missing[0]} it has")
    alternatives = tuple(text.strip() for text in row["alternatives"].split("|") if text.strip())
    for text in (*alternatives, row["labels_from"] or "seed=0"):
        if (key := _parse(text)[0]) not in DEFAULTS:
            raise ValueError(f"{text} sets {key}, which is no key of a run")
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


def _parse(override: str) -> tuple[str, Any]:
    """Read KEY=VALUE as the config would: numbers, booleans and null are what they look like."""
    key, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"{override!r} is not KEY=VALUE")
    value = yaml.safe_load(text)
    if isinstance(value, str):
        # YAML 1.1 takes 1e-05 and inf for words.
        with suppress(ValueError):
            value = float(value)
    return key, value


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
