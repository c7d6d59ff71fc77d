"""Tests of every file in configs/experiment/: what it composes to, and what its header claims."""

import csv
import re
import shlex

import pytest

from sam.config.dataset import FILE_READERS
from sam.paper.cells import Cell, read_cells
from sam.paper.runs import num_updates
from scripts import reproduce
from tests.config.test_schema import CHOICES, CONFIGS, PROTOCOLS, composed, protocol

EXPERIMENTS = CHOICES["experiment"]
OF_TABLES = [name for name in EXPERIMENTS if name.startswith("table")]
CELLS = read_cells(CONFIGS.parent / "results" / "paper" / "cells.csv")
FINETUNED_L2 = (512, 4, 0.008, 1e-5, 0.05, 0.0)
WRN_28_10, SHAKE_SHAKE = "table5/wrn_28_10", "table5/shake_shake_26_2x96d"
# Epochs, batch, m, lr, weight decay, rho, label smoothing and largest 2-norm of the gradient (5 in the
# released code, 1 in fine-tuning). Tables 6 and 7 and the text; epochs of PyramidNet and Table 5 are assumed.
BASIC = {
    "table1/wrn_28_10_200": (200, 256, 32, 0.1, 5e-4, 0.05, 0.0, 5.0),
    "table1/wrn_28_10_200 dataset=cifar100": (200, 256, 32, 0.1, 5e-4, 0.1, 0.0, 5.0),
    "table1/wrn_28_10_1800": (1800, 256, 32, 0.05, 1e-3, 0.05, 0.0, 5.0),
    "table1/wrn_28_10_1800 dataset=cifar100": (1800, 256, 32, 0.05, 1e-3, 0.1, 0.0, 5.0),
    "table1/shake_shake_26_2x96d": (1800, 256, 32, 0.02, 1e-3, 0.02, 0.0, 5.0),
    "table1/shake_shake_26_2x96d dataset=cifar100": (1800, 256, 32, 0.02, 1e-3, 0.05, 0.0, 5.0),
    "table1/pyramidnet_272": (1800, 256, 32, 0.05, 5e-4, 0.05, 0.0, 5.0),
    "table1/pyramidnet_272 dataset=cifar100": (1800, 256, 32, 0.05, 5e-4, 0.2, 0.0, 5.0),
    "table1/pyramidnet_272_shakedrop": (1800, 256, 32, 0.02, 5e-4, 0.05, 0.0, 5.0),
    "table1/pyramidnet_272_shakedrop dataset=cifar100": (1800, 256, 32, 0.05, 5e-4, 0.05, 0.0, 5.0),
    "table3/efficientnet_b7": (*PROTOCOLS["flowers102"], 1.0),
    "table3/efficientnet_b7 dataset=birdsnap": (*PROTOCOLS["birdsnap"], 1.0),
    "table3/efficientnet_b7_cifar": (104, *PROTOCOLS["flowers102"][1:], 1.0),
    "table3/efficientnet_b7_cifar dataset=cifar100": (104, *PROTOCOLS["flowers102"][1:], 1.0),
    "table3/efficientnet_b7_imagenet": (10, 1024, 16, 0.1, 1e-5, 0.05, 0.1, 1.0),
    "table3/efficientnet_l2": (20, *FINETUNED_L2, 1.0),
    "table3/efficientnet_l2 dataset=food101": (34, *FINETUNED_L2, 1.0),
    "table3/efficientnet_l2_cifar": (103, *FINETUNED_L2, 1.0),
    "table3/efficientnet_l2_cifar dataset=cifar100": (103, *FINETUNED_L2, 1.0),
    "table3/efficientnet_l2_imagenet": (10, 512, 4, 0.1, 1e-5, 0.05, 0.1, 1.0),
    # Batch, learning rate and weight decay of MentorMix's code.
    "table4/resnet32": (200, 128, 16, 0.1, 2e-4, 0.1, 0.0, 5.0),
    "table4/resnet32_wide": (200, 128, 16, 0.1, 2e-4, 0.1, 0.0, 5.0),
    WRN_28_10: (200, 256, 32, 0.01, 5e-4, 0.01, 0.0, 5.0),
    f"{WRN_28_10} dataset=fashion_mnist": (200, 256, 32, 0.1, 5e-4, 0.05, 0.0, 5.0),
    SHAKE_SHAKE: (200, 256, 32, 0.01, 5e-4, 0.01, 0.0, 5.0),
    f"{SHAKE_SHAKE} dataset=fashion_mnist": (200, 256, 32, 0.1, 5e-4, 0.02, 0.0, 5.0),
    # Not in the paper.
    "finetune dataset=flowers102": (*PROTOCOLS["flowers102"], 1.0),
    "finetune dataset=birdsnap": (*PROTOCOLS["birdsnap"], 1.0),
    "quickstart": (*PROTOCOLS["fashion_mnist_mini"], 5.0),
    "small/table1": (20, 128, 128, 0.1, 5e-4, 0.2, 0.0, 5.0),
    "small/table2": (40, 128, 128, 0.1, 5e-4, 0.05, 0.1, 5.0),
    "small/table3": (3, 64, 16, 0.01, 1e-5, 0.05, 0.0, 1.0),
    "small/table4": (20, 128, 128, 0.1, 5e-4, 0.2, 0.0, 5.0),
    "small/table5": (20, 128, None, 0.1, 5e-4, 0.2, 0.0, 5.0),
    "one_gpu/table1": (60, 128, 128, 0.1, 5e-4, 0.1, 0.0, 5.0),
    "one_gpu/table1 dataset=cifar10": (60, 128, 128, 0.1, 5e-4, 0.05, 0.0, 5.0),
    "one_gpu/table2": (40, 256, 128, 0.1, 1e-4, 0.05, 0.1, 5.0),
    "one_gpu/table3": (20, 64, 16, 0.01, 1e-5, 0.05, 0.0, 1.0),
    "one_gpu/table4": (60, 128, 128, 0.1, 5e-4, 0.1, 0.0, 5.0),
    "one_gpu/table5": (60, 128, 128, 0.1, 5e-4, 0.05, 0.0, 5.0),
    "one_gpu/figures": (60, 128, 128, 0.1, 5e-4, 0.05, 0.0, 5.0),
    "one_gpu/fig3_spectrum": (60, 128, 128, 0.03, 5e-4, 0.05, 0.0, 5.0),
    "small/figures": (20, 128, 128, 0.1, 5e-4, 0.2, 0.0, 5.0),
    "small/fig3_spectrum": (20, 128, 128, 0.05, 5e-4, 0.05, 0.0, 5.0),
    # Figures: little of them is printed, the rest is taken from Table 1.
    "figures/fig1_surfaces": (200, 256, 32, 0.1, 5e-4, 0.05, 0.0, 5.0),
    "figures/fig3_rho": (200, 256, 256, 0.1, 5e-4, 0.05, 0.0, 5.0),
    "figures/fig3_spectrum": (300, 256, 32, 0.03, 5e-4, 0.05, 0.0, 5.0),
    "figures/fig4": (200, 256, 32, 0.1, 5e-4, 0.05, 0.0, 5.0),
}
IMAGENET = {
    f"table2/resnet{depth}_{epochs}": (epochs, 4096, 128, 1.0, 1e-4, 0.05, 0.1, 5.0)
    for depth in (50, 101, 152)
    for epochs in (100, 200, 400)
}
PROTOCOLS_OF_EXPERIMENTS = {**BASIC, **IMAGENET}


def comments(experiment: str) -> list[str]:
    """Return the lines that stand at the top of a preset."""
    lines = (CONFIGS / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8").splitlines()
    found = [line[1:].strip() for line in lines if line.startswith("#")]
    assert found[0] == "@package _global_"
    return found[1:]


def header(experiment: str) -> str:
    return " ".join(comments(experiment))


def cells_of(experiment: str) -> list[Cell]:
    """Return the conditions that a preset is for, of its own table."""
    # Both stand for the one ResNet-32 of the paper.
    preset = "table4/resnet32_wide" if experiment == "table4/resnet32" else experiment
    wanted = (experiment[len("table")], f"experiment={preset}")
    return [cell for cell in CELLS if (cell.table, cell.overrides[0]) == wanted]


@pytest.mark.parametrize("experiment", PROTOCOLS_OF_EXPERIMENTS)
def test_experiments_bring_the_protocol_of_the_paper(experiment: str) -> None:
    config = composed("optimizer=sam", *f"experiment={experiment}".split())
    assert protocol(config) == PROTOCOLS_OF_EXPERIMENTS[experiment]


def test_experiments_are_all_tested() -> None:
    assert {name.split()[0] for name in PROTOCOLS_OF_EXPERIMENTS} == set(EXPERIMENTS)


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if not name.startswith("table2")])
def test_experiments_compose_with_another_dataset_and_sgd(experiment: str) -> None:
    # finetune is for whichever dataset of files is asked for.
    given = ["dataset=flowers102"] if experiment == "finetune" else []
    config = composed("optimizer=sam", f"experiment={experiment}", *given)
    others = {"svhn": "fashion_mnist", "cifar10": "cifar100"}
    other = (
        "food101" if config.dataset.reader in FILE_READERS else others.get(config.dataset.name, "cifar100")
    )
    changed = composed("optimizer=sgd", f"experiment={experiment}", f"dataset={other}")
    assert (changed.optimizer.name, changed.dataset.name) == ("sgd", other)
    assert changed.dataset.label_noise == config.dataset.label_noise
    assert changed.model == config.model


@pytest.mark.parametrize(
    ("overrides", "num_images", "num_steps"),
    [
        ("dataset=birdsnap", 47386, 5000),
        ("dataset=fgvc_aircraft", 6667, 5000),
        ("dataset=flowers102", 2040, 5000),
        ("dataset=food101", 75750, 5000),
        ("dataset=oxford_iiit_pet", 3680, 5000),
        ("dataset=stanford_cars", 8144, 5000),
        ("experiment=table3/efficientnet_b7_cifar", 50000, 5000),
        # Half the batch, twice the steps.
        ("experiment=table3/efficientnet_l2_cifar", 50000, 10000),
        ("experiment=table3/efficientnet_l2 dataset=flowers102", 2040, 10000),
        ("experiment=table3/efficientnet_l2 dataset=food101", 75750, 10000),
    ],
)
def test_fine_tuning_makes_as_many_steps_as_the_paper(
    overrides: str, num_images: int, num_steps: int
) -> None:
    config = composed(*overrides.split())
    steps = config.epochs * (num_images * config.dataset.repeats // config.batch_size)
    assert steps == pytest.approx(num_steps, rel=0.02)


@pytest.mark.parametrize("experiment", OF_TABLES)
def test_header_names_its_table_and_repeats_its_printed_numbers(experiment: str) -> None:
    text, cells = header(experiment), cells_of(experiment)
    assert text.startswith(f"Table {experiment[len('table')]}, ")
    assert cells
    with open(CONFIGS.parent / "results" / "paper" / "tables.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["table"] == cells[0].table]
    printed = {(row["value"], row["ci95"]) for row in rows}
    numbers = re.findall(r"(\d+\.\d+) ± (<?\d+\.\d+)", text)
    assert set(numbers) <= printed
    if cells[0].table == "4":
        words = {"bootstrap_mixup": "bootstrap + mixup", "bootstrap_sam": "bootstrap + SAM"}
        words |= {"sgd": "SGD", "sam": "SAM", "mixup": "mixup"}
        for method, word in words.items():
            series = [cell.top1.text for cell in cells if cell.method == method]
            assert len(series) == 4
            assert f" {word} {' / '.join(series)}" in text
            assert {f"{100 - float(number):.1f}" for number in series} <= {value for value, _ in printed}
    elif any(cell.method == "checkpoint" for cell in cells):
        assert all(cell.top1.text in text for cell in cells)
    else:
        pairs = re.findall(r"(\d+\.\d+ ± <?\d+\.\d+) / (\d+\.\d+ ± <?\d+\.\d+)", text)
        assert sorted(pairs) == sorted(pairs_of(cells))


def pairs_of(cells: list[Cell]) -> list[tuple[str, str]]:
    """Return each printed number without SAM beside that with SAM."""
    found = []
    for sgd, sam in zip(cells[::2], cells[1::2], strict=True):
        assert sgd.name.removesuffix("sgd") == sam.name.removesuffix("sam")
        found.append((sgd.top1.text, sam.top1.text))
        if sgd.top5 and sam.top5:
            found.append((sgd.top5.text, sam.top5.text))
    return found


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_header_has_a_command_that_composes_to_the_preset(experiment: str) -> None:
    found = [shlex.split(line)[2:] for line in comments(experiment) if line.startswith("python train.py ")]
    assert found
    for words in found:
        pairs = [word.partition(",")[0] for word in words if word != "-m"]
        assert pairs[0] == f"experiment={experiment}"
        assert ("-m" in words) == any("," in word for word in words)
        config = composed(*pairs)
        if experiment in OF_TABLES:
            assert "recipe=released_code" in words
            (model,) = {cell.values["model.name"] for cell in cells_of(experiment)}
            assert config.model.name == ("resnet32" if experiment == "table4/resnet32" else model)


@pytest.mark.parametrize("experiment", [name for name in OF_TABLES if not name.startswith("table4")])
def test_header_names_the_dry_run_of_its_conditions(experiment: str) -> None:
    (words,) = re.findall(r"python scripts/reproduce\.py (.*?--dry-run)", header(experiment))
    options = reproduce._parse(shlex.split(words))
    assert options.dry_run
    chosen = {cell.name: cell.overrides[0] for cell in reproduce._chosen(CELLS, options.words, options)}
    assert f"experiment={experiment}" in chosen.values()
    if not experiment.startswith("table3"):  # there it names a dataset, or the model of three presets
        assert list(chosen) == [cell.name for cell in cells_of(experiment)]


@pytest.mark.parametrize("experiment", [name for name in OF_TABLES if not name.startswith("table3")])
def test_header_counts_the_steps_of_its_runs(experiment: str) -> None:
    named = re.findall(r"(\d+,\d{3}) steps", header(experiment))
    assert named == [f"{num_updates(composed('optimizer=sam', f'experiment={experiment}')):,}"]
    if experiment.startswith("table5"):
        other = composed("optimizer=sam", f"experiment={experiment}", "dataset=fashion_mnist")
        assert f", {num_updates(other):,} on Fashion-MNIST" in header(experiment)
