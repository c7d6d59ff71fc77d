"""Tests of sam/paper/cells.py, with the repository's own cells if possible."""

import csv
from pathlib import Path
from typing import Any

import pytest

from sam.paper.cells import Cell, closest_cells, parse_interval, read_cells
from tests.record.run_directories import make_config

CELLS = Path(__file__).resolve().parents[2] / "results" / "paper" / "cells.csv"
# The values of the released code that Tables 1 and 5 do not state.
EXACT = {"optimizer__weight_decay_in": "loss", "model__init_seed": 0}
SAM = {**EXACT, "optimizer__name": "sam"}


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return read_cells(CELLS)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (EXACT, ["table1/cifar10/wrn_28_10_200/basic/sgd", "table9/cifar10/wrn_28_10_200/basic/sgd"]),
        (
            {**EXACT, "epochs": 400},
            ["table1/cifar10/wrn_28_10_200/basic/sgd", "table9/cifar10/wrn_28_10_200/basic/sgd"],
        ),
        (
            SAM,
            [
                "table1/cifar10/wrn_28_10_200/basic/sam",
                "table9/cifar10/wrn_28_10_200/basic/sam",
                "table11/cifar10/wrn_28_10_200/basic/sam_steps1",
            ],
        ),
        ({**SAM, "optimizer__ascent_steps": 3}, ["table11/cifar10/wrn_28_10_200/basic/sam_steps3"]),
        # Keys that SGD does not read.
        (
            {**EXACT, "optimizer__adaptive": True, "optimizer__replay": False},
            ["table1/cifar10/wrn_28_10_200/basic/sgd", "table9/cifar10/wrn_28_10_200/basic/sgd"],
        ),
    ],
)
def test_closest_cells_are_all_that_a_run_repeats(
    cells: list[Cell], changes: dict[str, Any], names: list[str]
) -> None:
    matches = closest_cells(make_config(**changes), cells)
    assert [match.cell.name for match in matches] == names
    assert not any(match.departures for match in matches)


@pytest.mark.parametrize(
    ("changes", "name", "departures"),
    [
        ({**EXACT, "epochs": 30}, "table1/cifar10/wrn_28_10_200/basic/sgd", ["epochs=30 (200 or 400)"]),
        (
            {**SAM, "optimizer__rho": 0.1, "runtime__precision": "bf16"},
            "table1/cifar10/wrn_28_10_200/basic/sam",
            ["optimizer.rho=0.1 (0.05)", "runtime.precision=bf16 (fp32)"],
        ),
        # The longer training has another learning rate and weight decay, so it is closer than the short one.
        (
            {**SAM, "epochs": 1700, "optimizer__lr": 0.05, "optimizer__weight_decay": 0.001},
            "table1/cifar10/wrn_28_10_1800/basic/sam",
            ["epochs=1700 (1800)"],
        ),
        (
            {**SAM, "dataset__num_train": 1000, "dataset__image_size": 16, "optimizer__replay": False},
            "table1/cifar10/wrn_28_10_200/basic/sam",
            [
                "dataset.num_train=1000 (null)",
                "dataset.image_size=16 (null)",
                "optimizer.replay=false (true)",
            ],
        ),
        (
            {**EXACT, "dataset__repeats": 2, "model__init": "torch"},
            "table1/cifar10/wrn_28_10_200/basic/sgd",
            ["model.init=torch (released_code)", "dataset.repeats=2 (1)"],
        ),
        ({**EXACT, "ema_decay": 0.99}, "table1/cifar10/wrn_28_10_200/basic/sgd", ["ema_decay=0.99 (null)"]),
    ],
)
def test_closest_cell_tells_every_departure(
    cells: list[Cell], changes: dict[str, Any], name: str, departures: list[str]
) -> None:
    (match,) = closest_cells(make_config(**changes), cells)
    assert (match.cell.name, [str(departure) for departure in match.departures]) == (name, departures)


def test_closest_cell_of_the_small_resnet32_departs_in_its_model(cells: list[Cell]) -> None:
    noisy = {"model__name": "resnet32", "dataset__label_noise": 0.2}
    (match,) = closest_cells(make_config(**SAM, **noisy), cells)
    assert match.cell.name == "table4/noise20/resnet32_wide/basic/sam"
    assert "model.name=resnet32 (resnet32_wide)" in map(str, match.departures)


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset__label_noise": 0.2},
        {"dataset__validation": "last"},
        {"dataset__label_file": "labels.npy"},
        {"dataset__relabel_from": "outputs/seed0-12345678"},
        {"dataset__reader": "synthetic"},
        {"dataset__name": "svhn", "augmentation__name": "autoaugment"},
        {"model__name": "resnet8"},
        {"model__weights": "hub"},
        {"model__freeze_statistics": True},
        {"augmentation__name": "mixup"},
        {**SAM, "optimizer__adaptive": True},
        {**SAM, "optimizer__p": float("inf")},
        {**SAM, "optimizer__direction": "random"},
        {**SAM, "optimizer__ascent_steps": 4},
        {**SAM, "optimizer__second_order": True},
        {**SAM, "optimizer__perturb": "norm"},
        {**SAM, "optimizer__ascent_fraction": 0.5},
        {**SAM, "optimizer__interval": 5},
        {**SAM, "optimizer__start": 0.5},
        {**SAM, "optimizer__stop": 0.5},
    ],
)
def test_closest_cells_are_none_for(cells: list[Cell], changes: dict[str, Any]) -> None:
    assert closest_cells(make_config(**changes), cells) == []


def test_weights_from_a_file_are_a_departure_and_drawn_ones_another_condition(cells: list[Cell]) -> None:
    finetuned = {
        "dataset__name": "imagenet",
        "dataset__reader": "image_folder",
        "model__name": "efficientnet_b7",
        "model__freeze_statistics": True,
        "augmentation__name": "inception",
        "optimizer__name": "sam",
    }
    (match,) = closest_cells(make_config(**finetuned, model__weights="b7.pth"), cells)
    assert match.cell.name == "table3/imagenet/efficientnet_b7/inception/sam"
    assert "model.weights=b7.pth (hub)" in map(str, match.departures)
    assert closest_cells(make_config(**finetuned, model__weights=None), cells) == []


@pytest.mark.parametrize(
    ("noise", "error_pct"), [(0.2, 4.6), (0.4, 5.8), (0.6, 8.2), (0.8, 20.1), (0.3, None), (None, None)]
)
def test_closest_cell_of_a_bootstrapped_run_depends_on_the_noise_of_its_labels(
    cells: list[Cell], noise: float | None, error_pct: float | None
) -> None:
    names = {"model__name": "resnet32_wide", "optimizer__name": "sam", "optimizer__rho": 0.1}
    config = make_config(**names, dataset__relabel_from="RUN")
    source = None if noise is None else make_config(**names, dataset__label_noise=noise)
    found = closest_cells(config, cells, source)
    assert [match.cell.top1.error_pct for match in found] == ([] if error_pct is None else [error_pct])


@pytest.mark.parametrize(("text", "parsed"), [("", None), ("0.1", 0.1), ("<0.1", 0.1), ("<0.0", None)])
def test_parse_interval_reads(text: str, parsed: float | None) -> None:
    assert parse_interval(text) == parsed


def test_parse_interval_of_anything_else_raises() -> None:
    with pytest.raises(ValueError, match="ci95='about 1' is neither empty, a number, nor < and a number"):
        parse_interval("about 1")


def _write(path: Path, **changes: str) -> Path:
    with CELLS.open(newline="", encoding="utf-8") as file:
        row = {**next(csv.DictReader(file)), **changes}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top1_error_pct": "x"}, "line 2: could not convert string to float: 'x'"),
        ({"top1_error_pct": ""}, "line 2: top1_error_pct is empty"),
        ({"printed": "epochs"}, "line 2: 'epochs' is not KEY=VALUE"),
        ({"assumed": "optimizer.lrr=1"}, "line 2: assumed has optimizer.lrr, which is not a key of a run"),
        ({"assumed": "epochs=200"}, "line 2: assumed repeats epochs, which another origin column has too"),
        ({"alternatives": "epoch=400"}, "line 2: epoch=400 sets epoch, which is not a key of a run"),
        ({"labels_from": "noise"}, "line 2: 'noise' is not KEY=VALUE"),
        ({"printed": "epochs=200"}, "line 2: dataset.name is missing in printed, released_code and assumed"),
    ],
)
def test_read_cells_names_the_line_of_a_fault(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_cells(_write(tmp_path / "cells.csv", **changes))


def test_read_cells_reads_numbers_as_the_config_does(tmp_path: Path) -> None:
    pairs = "dataset.name=a model.name=b augmentation.name=c optimizer.name=sam "
    pairs += "optimizer.weight_decay=1e-05 optimizer.p=inf optimizer.adaptive=true model.weights=null"
    (cell,) = read_cells(_write(tmp_path / "cells.csv", printed=pairs))
    assert cell.values["optimizer.weight_decay"] == 1e-5
    assert cell.values["optimizer.p"] == float("inf")
    assert cell.values["optimizer.adaptive"] is True
    assert cell.values["model.weights"] is None


def test_read_cells_names_missing_columns(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_text("cell,table\n")
    with pytest.raises(ValueError, match="lacks the columns alternatives, assumed, augmentation"):
        read_cells(path)
