"""Tests of results/paper/cells.csv against tables.csv in the same folder, and against Hydra's configs."""

import csv
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from sam.config.compose import checked
from sam.config.schema import TrainConfig, config_items
from sam.paper.cells import NAMES, Cell, closest_cells, read_cells

REPOSITORY = Path(__file__).resolve().parents[2]
PAPER = REPOSITORY / "results" / "paper"
JOINED = ("table", "dataset", "model", "epochs", "augmentation", "method")
COUNTS = {"1": 60, "2": 18, "3": 36, "4": 20, "5": 16, "8": 28, "9": 60, "10": 24, "11": 8}
OWN_NOISE_METHODS = ("SGD", "Mixup", "Bootstrap + Mixup", "SAM", "Bootstrap + SAM")
# Model and epochs in Table 1, and their names in Table 6.
IN_TABLE_6 = {
    ("WRN-28-10", "200"): ("WRN 28-10", "200"),
    ("WRN-28-10", "1800"): ("WRN 28-10", "1800"),
    ("Shake-Shake (26 2x96d)", "1800"): ("WRN 26-2x6 ShakeShake", ""),
    ("PyramidNet", ""): ("Pyramid vanilla", ""),
    ("PyramidNet+ShakeDrop", "1800"): ("Pyramid ShakeDrop", ""),
}
EVERYBODYS = {
    *NAMES,
    "epochs",
    "batch_size",
    "m",
    "label_smoothing",
    "optimizer.lr",
    "optimizer.weight_decay",
    "optimizer.momentum",
    "optimizer.nesterov",
    "optimizer.clip_norm",
    "optimizer.weight_decay_in",
    "model.init_seed",
}


def _rows(name: str) -> list[dict[str, str]]:
    with (PAPER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _is_ours(row: dict[str, str]) -> bool:
    """Return whether a printed number is an error of a method that the paper's authors ran."""
    if row["table"] not in COUNTS or row["metric"] == "estimated_sharpness":
        return False
    if row["table"] == "4":
        return row["method"] in OWN_NOISE_METHODS
    return not row["method"].startswith("Prev. SOTA")


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return read_cells(PAPER / "cells.csv")


def _compose(cells: list[Cell]) -> list[dict[str, Any]]:
    configs = []
    with initialize_config_dir(str(REPOSITORY / "configs"), version_base="1.3"):
        for cell in cells:
            labels = ["dataset.relabel_from=RUN"] if cell.labels_from else []
            config = checked(compose("train", [*cell.overrides, *labels]), TrainConfig)
            configs.append({key: value for key, value, _ in config_items(config)})
    return configs


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, value in values.items():
        *groups, key = name.split(".")
        section = config
        for group in groups:
            section = section.setdefault(group, {})
        section[key] = value
    return config


def _assert_is_repeated_by(cell: Cell, values: dict[str, Any], cells: list[Cell]) -> None:
    source = None
    if cell.labels_from:
        noise = float(cell.labels_from.partition("=")[2])
        source = _nested({**values, "dataset.relabel_from": None, "dataset.label_noise": noise})
    matches = closest_cells(_nested(values), cells, source)
    assert cell in [match.cell for match in matches], cell.name
    assert not matches[0].departures, cell.name


def _assert_lists(cell: Cell, values: dict[str, Any]) -> None:
    assert {key: values[key] for key in cell.values} == cell.values, cell.name


def test_cells_are_all_conditions_of_the_tables(cells: list[Cell]) -> None:
    assert Counter(cell.table for cell in cells) == COUNTS
    assert len({cell.name for cell in cells}) == len(cells)


def test_cells_repeat_every_printed_error_once() -> None:
    printed: dict[tuple[str, ...], dict[str, tuple[Decimal, str]]] = defaultdict(dict)
    for row in filter(_is_ours, _rows("tables.csv")):
        value, rank = Decimal(row["value"]), "top5" if row["metric"].startswith("top5") else "top1"
        error = 100 - value if row["metric"] == "clean_test_accuracy_pct" else value
        assert rank not in printed[tuple(row[key] for key in JOINED)], row
        ci95 = "" if row["table"] == "11" else row["ci95"]  # Table 11 prints a standard deviation instead
        printed[tuple(row[key] for key in JOINED)][rank] = error, ci95
    rows = _rows("cells.csv")
    listed = {
        tuple(row[key] for key in JOINED): {
            rank: (Decimal(row[f"{rank}_error_pct"]), row[f"{rank}_ci95"])
            for rank in ("top1", "top5")
            if row[f"{rank}_error_pct"]
        }
        for row in rows
    }
    assert len(listed) == len(rows)
    assert listed == printed


def test_cells_of_tables_1_and_5_have_the_hyperparameters_of_tables_6_and_7(cells: list[Cell]) -> None:
    tuned: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for row in _rows("tables.csv"):
        if row["table"] in ("6", "7"):
            key = row["table"], row["dataset"], row["model"], row["epochs"]
            tuned[key][row["metric"]] = float(row["value"])
    by_name = {cell.name: cell for cell in cells}
    found = set()
    for row in _rows("cells.csv"):
        if row["table"] in ("1", "5"):
            cell, model = by_name[row["cell"]], (row["model"], row["epochs"])
            table, (name, epochs) = ("6", IN_TABLE_6[model]) if row["table"] == "1" else ("7", model)
            key = table, row["dataset"], name, epochs
            assert cell.values["optimizer.lr"] == tuned[key]["learning_rate"], cell.name
            assert cell.values["optimizer.weight_decay"] == tuned[key]["weight_decay"], cell.name
            if cell.method == "sam":
                assert cell.values["optimizer.rho"] == tuned[key]["rho"], cell.name
            found.add(key)
    assert found == set(tuned)


def test_cells_give_every_hyperparameter_one_origin(cells: list[Cell]) -> None:
    for cell in cells:
        wanted = EVERYBODYS | ({"optimizer.rho"} if cell.values["optimizer.name"] == "sam" else set())
        is_timms = cell.values["model.name"].startswith(
            ("resnet50", "resnet101", "resnet152", "efficientnet")
        )
        assert ("model.init" in cell.values) != is_timms, cell.name
        assert wanted <= cell.values.keys(), cell.name
        assert cell.values.keys() == cell.origins.keys()
    for row in _rows("cells.csv"):
        lists = (row[origin].split() for origin in ("printed", "released_code", "assumed"))
        keys = [pair.partition("=")[0] for pairs in lists for pair in pairs]
        assert len(set(keys)) == len(keys), row["cell"]


def test_cells_have_alternatives_that_hydra_parses(cells: list[Cell]) -> None:
    parser = OverridesParser.create()
    counts = Counter(len(cell.alternatives) for cell in cells)
    assert counts == {0: 202, 2: 60, 4: 8}
    for cell in cells:
        overrides = [*cell.alternatives, *filter(None, [cell.labels_from])]
        keys = {override.key_or_group for override in parser.parse_overrides(overrides)}
        assert keys <= {"epochs", "augmentation.mixup_alpha", "dataset.label_noise"}, cell.name


def test_cells_list_what_their_overrides_compose_to(cells: list[Cell]) -> None:
    chosen = [next(cell for cell in cells if cell.table == table) for table in COUNTS]
    for cell, values in zip(chosen, _compose(chosen)):
        _assert_lists(cell, values)
        _assert_is_repeated_by(cell, values, cells)


@pytest.mark.slow
@pytest.mark.parametrize("table", COUNTS)
def test_all_cells_list_what_their_overrides_compose_to(cells: list[Cell], table: str) -> None:
    chosen = [cell for cell in cells if cell.table == table]
    for cell, values in zip(chosen, _compose(chosen)):
        _assert_lists(cell, values)
        _assert_is_repeated_by(cell, values, cells)
        for text in cell.alternatives:
            key, _, value = text.partition("=")
            _assert_is_repeated_by(cell, {**values, key: float(value)}, cells)
