"""The paper's printed test errors, and which of them belongs to a condition of ours.

results/paper/README.md explains the columns of the file.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam.report.settings import DEFAULTS, RULES, values_of

KEY_COLUMNS = ("run_dataset", "run_model", "run_augmentation", "run_optimizer")
# Table 2 has top-1 and top-5 errors.
METRICS = ("test_error_pct", "top1_error_pct")
VALUE_COLUMNS = ("table", "epochs", "metric", "value", "ci95")
# With another value than the default, a run is none of those in Tables 1, 2 and 5.
UNPRINTED_KEYS = (
    "dataset.num_train",
    "dataset.num_test",
    "dataset.validation",
    "dataset.repeats",
    "dataset.label_noise",
    "dataset.label_file",
    "dataset.relabel_from",
    "dataset.extra",
    "model.weights",
    "model.freeze_statistics",
    "model.input_size",
    "augmentation.mixup_alpha",
    "optimizer.adaptive",
    "optimizer.p",
    "optimizer.direction",
    "optimizer.ascent_steps",
    "optimizer.second_order",
)


@dataclass(frozen=True)
class PrintedCell:
    """One printed test error that a run of ours repeats.

    Attributes:
        run_key: Names of dataset, model, augmentation and optimizer in our configs.
        table: Number of the table in the paper.
        epochs: Length of training; None where the paper does not print it.
        test_error_pct: The number itself.
        ci95_points: Half-width of its 95 % interval in points; None where none is printed.
        ci95_is_upper_bound: Whether the interval is printed as smaller than that.
        text: The number with its interval, as printed.
    """

    run_key: tuple[str, ...]
    table: str
    epochs: int | None
    test_error_pct: float
    ci95_points: float | None
    ci95_is_upper_bound: bool
    text: str


def read_printed_cells(path: Path) -> list[PrintedCell]:
    """Read the cells that a run of ours repeats; rows without a key are passed over.

    Args:
        path: A file such as results/paper/tables.csv.

    Returns:
        The cells in the order of the file.

    Raises:
        ValueError: If a column is missing or a cell is not what its column holds.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {*KEY_COLUMNS, *VALUE_COLUMNS} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(
                f"{path} lacks the columns {', '.join(sorted(missing))}; its README names them all"
            )
        cells = []
        for row in reader:
            try:
                if row["run_dataset"] and row["metric"] in METRICS:
                    cells.append(_parse_cell(row))
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {reader.line_num}: {error}; its README explains the columns"
                ) from error
    return cells


def parse_interval(text: str) -> tuple[float | None, bool]:
    """Read an interval such as "0.1", "<0.1" or "".

    Args:
        text: The half-width as printed.

    Returns:
        The half-width, None where none is printed; and whether it is only an upper bound.

    Raises:
        ValueError: If what follows an optional "<" is not a number.
    """
    text = text.strip()
    if not text:
        return None, False
    try:
        return float(text.removeprefix("<")), text.startswith("<")
    except ValueError:
        raise ValueError(f"ci95={text!r} is neither empty, a number, nor < and a number") from None


def find_printed(config: Mapping[str, Any], cells: Iterable[PrintedCell]) -> PrintedCell | None:
    """Find the printed number that a run repeats.

    Names and epochs decide. A printed SGD number of Table 1 is the better of the standard and of
    twice the epochs, so it belongs to SGD runs of both lengths; one printed without epochs belongs
    to any. The cells have nothing on what `UNPRINTED_KEYS` name.

    Args:
        config: The resolved config of the run.
        cells: The printed cells.

    Returns:
        The first cell that fits; None where none does.
    """
    values = values_of(config)
    is_sam = values["optimizer.name"] == "sam"
    for key in UNPRINTED_KEYS:
        if values[key] != DEFAULTS[key] and (is_sam or not RULES[key].get("sam_only")):
            return None
    run_key = tuple(config[group]["name"] for group in ("dataset", "model", "augmentation", "optimizer"))
    for cell in cells:
        if cell.run_key == run_key and _same_length(cell, config["epochs"]):
            return cell
    return None


def _parse_cell(row: Mapping[str, str]) -> PrintedCell:
    ci95_points, is_upper_bound = parse_interval(row["ci95"])
    return PrintedCell(
        run_key=tuple(row[column] for column in KEY_COLUMNS),
        table=row["table"],
        epochs=int(row["epochs"]) if row["epochs"] else None,
        test_error_pct=float(row["value"]),
        ci95_points=ci95_points,
        ci95_is_upper_bound=is_upper_bound,
        text=f"{row['value']} ± {row['ci95']}" if row["ci95"] else row["value"],
    )


def _same_length(cell: PrintedCell, epochs: int) -> bool:
    if cell.epochs is None:
        return True
    is_better_of_two = cell.table == "1" and cell.run_key[-1] == "sgd"
    return epochs == cell.epochs or (is_better_of_two and epochs == 2 * cell.epochs)
