"""Tests of sam/report/paper.py, on the repository's own table where they can be."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sam.report.paper import PrintedCell, find_printed, parse_interval, read_printed_cells
from tests.report.run_directories import make_config

TABLES = Path(__file__).parents[2] / "results" / "paper" / "tables.csv"
HEADER = "run_dataset,run_model,run_augmentation,run_optimizer,table,epochs,metric,value,ci95\n"


@pytest.fixture(scope="module")
def cells() -> list[PrintedCell]:
    """All cells of the repository's table."""
    return read_printed_cells(TABLES)


def test_printed_cells_are_those_of_tables_1_and_5(cells: list[PrintedCell]) -> None:
    assert Counter(cell.table for cell in cells) == {"1": 60, "5": 12}


def test_printed_cells_have_one_number_per_condition(cells: list[PrintedCell]) -> None:
    assert len({(cell.run_key, cell.epochs) for cell in cells}) == len(cells)


def test_printed_cells_use_names_of_our_configs(cells: list[PrintedCell]) -> None:
    names = [set(column) for column in zip(*(cell.run_key for cell in cells), strict=True)]
    assert names == [
        {"cifar10", "cifar100", "svhn", "fashion_mnist"},
        {"wrn_28_10", "shake_shake_26_2x96d", "pyramidnet_272", "pyramidnet_272_shakedrop"},
        {"basic", "cutout", "autoaugment"},
        {"sgd", "sam"},
    ]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "3.5 ± 0.1"),
        ({"optimizer__name": "sam"}, "2.7 ± 0.1"),
        ({"optimizer__name": "sam", "augmentation__name": "autoaugment"}, "2.1 ± <0.1"),
        ({"dataset__name": "cifar100", "optimizer__name": "sam"}, "16.5 ± 0.2"),
        ({"optimizer__name": "sam", "epochs": 1800}, "2.4 ± 0.1"),
        ({"dataset__name": "fashion_mnist", "augmentation__name": "cutout"}, "3.86 ± 0.14"),
        ({"dataset__name": "svhn", "epochs": 123}, "1.58 ± 0.03"),
        ({"model__name": "pyramidnet_272", "epochs": 7}, "4.0 ± 0.1"),
    ],
)
def test_find_printed_names_the_number_of_the_paper(
    cells: list[PrintedCell], changes: dict[str, Any], text: str
) -> None:
    cell = find_printed(make_config(**changes), cells)
    assert cell is not None
    assert cell.text == text


def test_find_printed_takes_sgd_of_twice_the_epochs(cells: list[PrintedCell]) -> None:
    cell = find_printed(make_config(epochs=400), cells)
    assert cell is not None
    assert (cell.epochs, cell.test_error_pct) == (200, 3.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 100},
        {"epochs": 399},
        {"epochs": 400, "optimizer__name": "sam"},
        {"dataset__label_noise": 0.2},
        {"dataset__num_train": 1000},
        {"dataset__num_test": 1000},
        {"optimizer__name": "sam", "optimizer__adaptive": True},
        {"dataset__name": "svhn", "augmentation__name": "autoaugment"},
        {"model__name": "resnet8"},
    ],
)
def test_find_printed_finds_nothing_for(cells: list[PrintedCell], changes: dict[str, Any]) -> None:
    assert find_printed(make_config(**changes), cells) is None


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("", (None, False)),
        ("0.1", (0.1, False)),
        ("<0.1", (0.1, True)),
        ("<0.0", (0.0, True)),
    ],
)
def test_parse_interval_reads(text: str, parsed: tuple[float | None, bool]) -> None:
    assert parse_interval(text) == parsed


def test_parse_interval_of_anything_else_raises() -> None:
    with pytest.raises(ValueError, match="ci95='about 1' is neither empty, a number, nor <"):
        parse_interval("about 1")


def test_read_printed_cells_passes_over_rows_without_key(tmp_path: Path) -> None:
    path = tmp_path / "tables.csv"
    path.write_text(HEADER + ",,,,2,100,top1_error_pct,odd,odd\n")
    assert read_printed_cells(path) == []


def test_read_printed_cells_names_missing_columns(tmp_path: Path) -> None:
    path = tmp_path / "tables.csv"
    path.write_text(HEADER.replace(",ci95", ""))
    with pytest.raises(ValueError, match="lacks the columns ci95"):
        read_printed_cells(path)


def test_read_printed_cells_names_the_line_of_a_bad_number(tmp_path: Path) -> None:
    path = tmp_path / "tables.csv"
    path.write_text(HEADER + "cifar10,wrn_28_10,basic,sgd,1,200,test_error_pct,x,0.1\n")
    with pytest.raises(ValueError, match="line 2: could not convert string to float: 'x'"):
        read_printed_cells(path)
