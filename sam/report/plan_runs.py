"""The table of the runs of results/measured/plan.md, and which runs belong to which block."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sam.record.analyses import read_analyses
from sam.record.reader import Run
from sam.record.values import number, values_of

KEYS = (
    "dataset.name",
    "dataset.num_train",
    "dataset.num_test",
    "dataset.image_size",
    "dataset.subset_seed",
    "dataset.validation",
    "dataset.label_noise",
    "augmentation.name",
    "augmentation.mixup_alpha",
    "model.name",
    "m",
    "runtime.precision",
    "optimizer.name",
    "optimizer.lr",
    "optimizer.rho",
    "optimizer.start",
    "epochs",
)
RESULTS = (
    "status",
    "test_error_pct",
    "train_error_pct",
    "train_clean_error_pct",
    "forward_backward_passes",
    "seconds",
    "commit",
    "device",
    "threads",
    "ended_at",
)
COLUMNS = (*KEYS, "seed", "identity", *RESULTS, "torch", "lambda_max")
# The setting of all runs of the plan.
SETTING = {
    "dataset.num_train": "10000",
    "dataset.num_test": "",
    "dataset.image_size": "16",
    "augmentation.name": "none",
    "augmentation.mixup_alpha": "0",
    "model.name": "resnet20",
    "m": "128",
    "runtime.precision": "bf16",
    "optimizer.start": "0",
}
SEARCH_SEEDS = (50, 51)
SEARCH = {"dataset.validation": "random", "dataset.subset_seed": "fixed"}
CONFIRMATORY = {"dataset.validation": "none", "dataset.subset_seed": "run"}
# The largest eigenvalue of the plan is that of this analysis.
HESSIAN = {"split": "train", "num_images": 1000, "statistics": "evaluation"}

Row = Mapping[str, str]


class PlanCondition(NamedTuple):
    """Runs of the plan that differ only in their seed.

    Attributes:
        dataset: Name of the dataset.
        label_noise: Share of wrong labels.
        method: "sgd" or "sam".
        epochs: Number of training epochs.
        searched: The value of the searched key: the learning rate of SGD, rho of SAM.
    """

    dataset: str
    label_noise: float
    method: str
    epochs: int
    searched: float


def row_of(run: Run) -> dict[str, str]:
    """Return the row of an ended run; empty texts stand for null.

    Args:
        run: The run; its result is not None.
    """
    assert run.result is not None, "only ended runs have a row"
    values = values_of(run.config)
    row = {key: values[key] for key in KEYS} | {key: run.result.get(key) for key in RESULTS}
    row |= {"seed": run.result["seed"], "identity": run.result["identity"]}
    row["torch"] = run.result["versions"].get("torch")
    row["lambda_max"] = _largest_eigenvalue(run)
    if values["optimizer.name"] != "sam":  # SGD does not read it
        row["optimizer.rho"] = None
    return {column: "" if row[column] is None else str(row[column]) for column in COLUMNS}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the table; a missing file has no rows.

    Raises:
        ValueError: If a column is missing.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restval="")
        if missing := set(COLUMNS) - set(reader.fieldnames or ()):
            raise ValueError(f"{path} lacks the columns {', '.join(sorted(missing))}; write it with --add")
        return list(reader)


def merged(rows: Iterable[Row], more: Iterable[Row]) -> list[Row]:
    """Add rows to a table. A run that is already there can only get its eigenvalue.

    Args:
        rows: The rows of the table.
        more: Rows to add.

    Raises:
        ValueError: If a run is already there with another result.
    """
    found = {_key(row): row for row in rows}
    for row in more:
        old = found.get(_key(row), row)
        new = {**row, "lambda_max": row["lambda_max"] or old["lambda_max"]}
        for column in ("status", "test_error_pct", "lambda_max"):
            if old[column] not in ("", new[column]):
                raise ValueError(
                    f"{column}={new[column]} of identity {row['identity']}, seed {row['seed']}: the table "
                    f"has {old[column]}; a result of the plan is not replaced, so leave this run out"
                )
        found[_key(row)] = new
    return sorted(found.values(), key=lambda row: [row[key] for key in KEYS] + [row["seed"].zfill(4)])


def table_text(rows: Iterable[Row]) -> str:
    """Return the table as CSV."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def runs_by_seed(
    rows: Sequence[Row], condition: PlanCondition, protocol: Mapping[str, str]
) -> dict[int, Row]:
    """Return the rows of a condition by seed.

    Args:
        rows: The table.
        condition: The condition.
        protocol: SEARCH or CONFIRMATORY.

    Raises:
        ValueError: If a seed has two runs; they differ in a key that the table lacks.
    """
    wanted = {
        **SETTING,
        **protocol,
        "dataset.name": condition.dataset,
        "dataset.label_noise": f"{condition.label_noise:g}",
        "optimizer.name": condition.method,
        "epochs": str(condition.epochs),
        "optimizer.lr" if condition.method == "sgd" else "optimizer.rho": f"{condition.searched:g}",
    }
    if condition.method == "sam":
        wanted["optimizer.lr"] = "0.1"
    found: dict[int, Row] = {}
    for row in rows:
        if all(row[key] == value for key, value in wanted.items()):
            seed = int(row["seed"])
            if found.setdefault(seed, row) is not row:
                both = f"{found[seed]['identity']} and {row['identity']}"
                raise ValueError(
                    f"seed {seed} has two runs of one condition, {both}; leave out the one not planned"
                )
    return found


def _key(row: Row) -> tuple[str, str]:
    return row["identity"], row["seed"]


def _largest_eigenvalue(run: Run) -> float | None:
    analyses, _ = read_analyses(run.directory, "hessian")
    found = [
        number(made.result.get("lambda_max"))
        for made in analyses
        if made.epoch == run.last_epoch and all(made.record.get(key) == HESSIAN[key] for key in HESSIAN)
    ]
    return found[-1] if found else None
