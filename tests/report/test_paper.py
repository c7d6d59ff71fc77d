"""Tests of sam/report/paper.py, on the repository's own table where they can be."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sam.report.paper import PrintedCell, find_printed, parse_interval, read_printed_cells
from tests.report.run_directories import make_config

REPOSITORY = Path(__file__).parents[2]
TABLES = REPOSITORY / "results" / "paper" / "tables.csv"
CONFIGS = REPOSITORY / "configs"
IMAGENET = {"dataset__name": "imagenet", "model__name": "resnet101", "augmentation__name": "inception"}
HEADER = "run_dataset,run_model,run_augmentation,run_optimizer,table,epochs,metric,value,ci95\n"


@pytest.fixture(scope="module")
def cells() -> list[PrintedCell]:
    """All cells of the repository's table."""
    return read_printed_cells(TABLES)


def test_printed_cells_are_those_of_tables_1_2_and_5(cells: list[PrintedCell]) -> None:
    assert Counter(cell.table for cell in cells) == {"1": 60, "2": 18, "5": 16}


def test_printed_cells_have_one_number_per_condition(cells: list[PrintedCell]) -> None:
    assert len({(cell.run_key, cell.epochs) for cell in cells}) == len(cells)


def test_printed_cells_use_names_of_our_configs(cells: list[PrintedCell]) -> None:
    names = zip(*(cell.run_key for cell in cells), strict=True)
    for group, column in zip(("dataset", "model", "augmentation", "optimizer"), names, strict=True):
        assert set(column) <= {path.stem for path in (CONFIGS / group).glob("*.yaml")}


def test_printed_cells_pair_sgd_with_sam(cells: list[PrintedCell]) -> None:
    conditions = Counter((cell.run_key[:3], cell.epochs) for cell in cells)
    assert set(conditions.values()) == {2}


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
        ({"dataset__name": "svhn", "augmentation__name": "autoaugment_svhn"}, "1.14 ± 0.04"),
        ({**IMAGENET, "optimizer__name": "sam", "epochs": 400}, "19.0 ± <0.01"),
        # Only what SAM reads.
        ({"optimizer__p": float("inf"), "optimizer__adaptive": True}, "3.5 ± 0.1"),
        # What the paper is silent on.
        ({"optimizer__name": "sam", "optimizer__replay": False, "model__init": "torch"}, "2.7 ± 0.1"),
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


@pytest.mark.parametrize(("epochs", "error_pct"), [(100, 21.2), (200, 20.9), (400, 22.3)])
def test_find_printed_takes_imagenet_at_its_own_length(
    cells: list[PrintedCell], epochs: int, error_pct: float
) -> None:
    cell = find_printed(make_config(**IMAGENET, epochs=epochs), cells)
    assert cell is not None
    assert (cell.table, cell.epochs, cell.test_error_pct) == ("2", epochs, error_pct)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 100},
        {"epochs": 399},
        {"epochs": 400, "optimizer__name": "sam"},
        {"dataset__label_noise": 0.2},
        {"dataset__num_train": 1000},
        {"dataset__num_test": 1000},
        {"dataset__validation": "last"},
        {"dataset__repeats": 2},
        {"dataset__label_file": "labels.npy"},
        {"dataset__relabel_from": "outputs/seed0-12345678"},
        {"dataset__name": "svhn", "dataset__extra": False},
        {"dataset__name": "svhn", "augmentation__name": "autoaugment"},
        {"dataset__name": "fashion_mnist", "augmentation__name": "autoaugment"},
        {**IMAGENET, "epochs": 800},
        {"model__weights": "hub"},
        {"model__freeze_statistics": True},
        {"model__input_size": 64},
        {"augmentation__mixup_alpha": 1.0},
        {"optimizer__name": "sam", "optimizer__adaptive": True},
        {"optimizer__name": "sam", "optimizer__p": float("inf")},
        {"optimizer__name": "sam", "optimizer__direction": "random"},
        {"optimizer__name": "sam", "optimizer__ascent_steps": 2},
        {"optimizer__name": "sam", "optimizer__second_order": True},
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
    path.write_text(HEADER + ",,,,2,100,top5_error_pct,odd,odd\n")
    assert read_printed_cells(path) == []


def test_read_printed_cells_passes_over_what_is_no_top_1_error(tmp_path: Path) -> None:
    path = tmp_path / "tables.csv"
    rows = [f"imagenet,resnet50,inception,sgd,2,100,top{k}_error_pct,{k},0.1\n" for k in (1, 5)]
    path.write_text(HEADER + "".join(rows))
    assert [cell.test_error_pct for cell in read_printed_cells(path)] == [1.0]


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
