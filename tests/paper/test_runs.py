"""Tests of sam/paper/runs.py: the runs that repeat a condition, and their sizes."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from sam.config.check import check
from sam.config.compose import CONFIGS, composed
from sam.config.schema import TrainConfig
from sam.data import datasets
from sam.paper.cells import Cell, read_cells
from sam.paper.runs import (
    SIZES,
    PlannedRun,
    num_evaluated,
    num_updates,
    on_random_data,
    quoted,
    runs_of,
    unique,
)
from sam.record.identity import path_of
from sam.system.errors import ConfigError
from tests.conftest import changed

CELLS = {cell.name: cell for cell in read_cells(CONFIGS.parent / "results" / "paper" / "cells.csv")}
# Valid names of folders.
FOLDERS = ["outputs", 'it\'s "a", b=[größe]', r"a\'b/seed0-1"]
SMALL = {"m": 4, "num_micro_batches": 2, "num_batches": 3}


def names_of(runs: list[PlannedRun]) -> list[tuple[int, int]]:
    return [(run.config.epochs, run.config.seed) for run in runs]


def test_runs_are_one_for_each_alternative_and_seed() -> None:
    runs = runs_of(CELLS["table1/cifar10/wrn_28_10_200/basic/sgd"], [0, 3])
    assert names_of(runs) == [(200, 0), (200, 3), (400, 0), (400, 3)]
    assert len({run.directory for run in runs}) == 4
    assert all(run.config.optimizer.name == "sgd" for run in runs)
    assert runs[3].overrides[-2:] == ("epochs=400", "seed=3")
    (one,) = runs_of(CELLS["table1/cifar10/wrn_28_10_200/basic/sam"], [7])
    assert (one.config.seed, one.config.optimizer.rho) == (7, 0.05)


def test_overrides_of_the_user_win_over_those_of_the_condition_and_close_its_alternatives() -> None:
    more = ["epochs=3", "recipe=text", "optimizer.lr=0.3"]
    (run,) = runs_of(CELLS["table1/cifar10/wrn_28_10_200/basic/sgd"], [0], more)
    assert (run.config.epochs, run.config.optimizer.lr, run.config.model.shortcut) == (3, 0.3, "conv")


@pytest.mark.parametrize("outputs", FOLDERS)
def test_runs_are_what_their_command_lines_compose_to(
    outputs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cell = CELLS["table4/noise80/resnet32_wide/basic/bootstrap_sam"]
    source, run = runs_of(cell, [2], [f"outputs={quoted(outputs)}"])
    for each in (source, run):
        config = composed(each.overrides)
        assert config == each.config
        assert config.outputs == outputs
        assert path_of(config) == each.directory
    assert run.config.dataset.relabel_from == str(tmp_path / source.directory)


def test_quoted_leaves_a_plain_path_alone() -> None:
    assert quoted("/data/runs-1.0/seed0-12ab") == "/data/runs-1.0/seed0-12ab"
    parsed = OverridesParser.create().parse_override(f"outputs={quoted('a,b')}")
    assert not parsed.is_sweep_override()


def test_bootstrapped_runs_come_after_the_runs_of_their_seed_and_alternative() -> None:
    runs = runs_of(CELLS["table4/noise40/resnet32_wide/mixup/bootstrap_mixup"], [0, 5])
    assert len(runs) == 4 * 2 * 2
    found = []
    for source, run in zip(runs[::2], runs[1::2]):
        assert source.config.dataset.label_noise == 0.4
        assert source.config.dataset.relabel_from is None
        assert run.config.dataset.label_noise == 0
        assert run.config.dataset.relabel_from == str(source.directory.absolute())
        keys = [(each.config.augmentation.mixup_alpha, each.config.seed) for each in (source, run)]
        assert keys[0] == keys[1]
        found.append(keys[0])
    assert found == [(alpha, seed) for alpha in (1, 8, 16, 32) for seed in (0, 5)]


def test_noise_drawn_over_all_classes_is_that_of_the_source() -> None:
    cell = CELLS["table4/noise40/resnet32_wide/basic/bootstrap_sam"]
    source, run = runs_of(cell, [0], ["dataset.label_noise_over=all_classes"])
    assert source.config.dataset.label_noise_over == "all_classes"
    assert (run.config.dataset.label_noise, run.config.dataset.label_noise_over) == (0, "other_classes")
    assert run.config.dataset.relabel_from == str(source.directory.absolute())


def test_sources_of_bootstrapped_runs_are_the_runs_of_the_condition_with_those_wrong_labels() -> None:
    alone = runs_of(CELLS["table4/noise40/resnet32_wide/basic/sam"], [1])
    both = runs_of(CELLS["table4/noise40/resnet32_wide/basic/bootstrap_sam"], [1])
    assert alone[0].directory == both[0].directory
    assert len(unique([*alone, *both])) == 2


def planned(name: str, number: int) -> PlannedRun:
    return PlannedRun((f"seed={number}",), changed({"seed": number}), Path(name))


def test_unique_keeps_the_first_of_each_in_its_place() -> None:
    # A bootstrapped run (b) must stay after its source (a), although another condition also needs (a).
    runs = [planned("a", 0), planned("b", 1), planned("a", 2), planned("c", 3), planned("b", 4)]
    assert unique(runs) == [runs[0], runs[1], runs[3]]
    assert unique(iter(runs)) == unique(runs)
    assert unique([]) == []


def test_sgd_of_table_9_is_that_of_table_1_and_counts_once() -> None:
    one, nine = (
        runs_of(CELLS[f"{table}/cifar100/wrn_28_10_1800/cutout/sgd"], [0]) for table in ("table1", "table9")
    )
    assert unique([*one, *nine]) == one


@pytest.mark.parametrize(
    ("overrides", "steps_per_epoch", "num_images"),
    [
        # floor(50,000 / 256), floor(1,281,167 / 4,096), floor(604,388 / 256), as in the presets' headers.
        ("experiment=table1/wrn_28_10_200", 195, 10_000),
        ("experiment=table2/resnet50_100", 312, 50_000),
        ("experiment=table5/wrn_28_10", 2360, 26_032),
        ("experiment=table5/wrn_28_10 dataset.extra=false", 286, 26_032),  # floor(73,257 / 256)
        ("experiment=table5/wrn_28_10 dataset=fashion_mnist", 234, 10_000),
        ("experiment=table4/resnet32", 390, 10_000),
        # 45,000 images remain if 5,000 are held out; or as many of them as dataset.num_train asks for.
        ("experiment=table1/wrn_28_10_200 dataset.validation=last", 175, 5_000),
        ("experiment=table1/wrn_28_10_200 dataset.num_train=10000 dataset.num_test=7", 39, 7),
        ("experiment=table5/wrn_28_10 dataset.num_train=10000 dataset.validation=random", 39, 60_439),
        # 2,040 images, used several times per epoch.
        ("experiment=table3/efficientnet_b7 dataset.repeats=251", 500, 6_149),
    ],
)
def test_updates_and_evaluated_images_are_counted(
    overrides: str, steps_per_epoch: int, num_images: int
) -> None:
    config = composed(overrides.split())
    assert num_updates(config) == config.epochs * steps_per_epoch
    assert num_evaluated(config) == config.epochs * num_images


def test_run_without_epochs_makes_no_update_and_evaluates_once() -> None:
    config = composed(["experiment=table3/efficientnet_b7_imagenet", "epochs=0"])
    assert (num_updates(config), num_evaluated(config)) == (0, 50_000)


def test_sizes_are_those_of_every_dataset_of_the_tables() -> None:
    assert {cell.values["dataset.name"] for cell in CELLS.values()} <= SIZES.keys()
    mini = datasets.fashion_mnist_mini()
    assert SIZES["fashion_mnist"].num_pixels == mini.train.shape[0]
    assert SIZES["fashion_mnist"].num_classes == mini.num_classes


def test_dataset_without_a_size_is_refused_in_one_message() -> None:
    with pytest.raises(ConfigError, match=r"^dataset=synthetic: its size is not known here; allowed"):
        num_updates(composed(["dataset=synthetic"]))


def first_of(table: str) -> list[Cell]:
    """Return a condition of every preset of a table."""
    return list({cell.overrides[0]: cell for cell in CELLS.values() if cell.table == table}.values())


@pytest.mark.parametrize("table", ["1", "4", "5"])
def test_made_up_runs_on_images_in_memory_are_allowed(table: str) -> None:
    for cell in first_of(table):
        config = on_random_data(runs_of(cell, [0])[-1].config, **SMALL)
        check(config)
        assert (config.m, config.batch_size) == (4, 8)
        assert config.dataset.reader == "synthetic"
        assert config.dataset.image_size == (28 if "fashion" in config.dataset.name else 32)
        assert config.dataset.relabel_from is None


@pytest.mark.parametrize("validation", ["none", "random"])
def test_made_up_run_has_the_batches_that_were_asked_for(validation: str) -> None:
    given = composed(["experiment=table1/wrn_28_10_200", f"dataset.validation={validation}"])
    for num_micro_batches in (1, 2, 8):
        config = on_random_data(given, m=5, num_micro_batches=num_micro_batches, num_batches=3)
        num_train = config.dataset.num_train
        assert num_train is not None
        left = num_train - (round(num_train / 10) if validation == "random" else 0)
        assert left // config.batch_size >= 3
        assert config.dataset.num_test == 10


def test_made_up_run_needs_neither_weights_nor_files_nor_another_run() -> None:
    keys = ["experiment=table3/efficientnet_b7", "dataset=food101", "dataset.resize_size=640"]
    given = composed(keys)
    config = on_random_data(given, **SMALL, largest_size=96)
    assert given.model.weights == "hub"
    assert config.model.weights is None
    assert config.dataset.reader == "image_folder"
    assert (config.dataset.image_size, config.dataset.resize_size) == (96, 96)
    assert config.dataset.num_classes == 101
    assert config.dataset.repeats == 1
    labels = ["dataset=cifar10", "dataset.label_file=labels.npz", "dataset.label_name=worse_label"]
    check(on_random_data(composed(labels), **SMALL))


def test_made_up_run_limits_the_input_of_the_network_too() -> None:
    given = composed(["experiment=table3/efficientnet_l2_cifar"])
    assert on_random_data(given, **SMALL).model.input_size == 475
    small = on_random_data(given, **SMALL, largest_size=64)
    assert (small.dataset.image_size, small.model.input_size) == (32, 64)


def test_made_up_run_has_the_images_of_the_config_where_it_shrinks_them() -> None:
    config = on_random_data(composed(["experiment=small/table1"]), **SMALL)
    assert config.dataset.image_size == 16


def test_made_up_run_keeps_the_rest() -> None:
    given = composed(["experiment=table1/wrn_28_10_200", "recipe=text", "optimizer.ascent_steps=3"])
    config = on_random_data(given, **SMALL)
    assert config.optimizer == given.optimizer
    assert config.augmentation == given.augmentation
    assert (config.epochs, config.seed) == (given.epochs, given.seed)


@pytest.mark.parametrize(("dataset", "rho"), [("cifar10", 0.05), ("cifar100", 0.2)])
def test_preset_brings_the_values_of_the_chosen_dataset(dataset: str, rho: float) -> None:
    # test_experiments.py tests all of them.
    assert composed(["experiment=table1/pyramidnet_272", f"dataset={dataset}"]).optimizer.rho == rho


def test_value_by_dataset_gives_way_to_the_command_line() -> None:
    config = composed(["experiment=table1/wrn_28_10_200", "dataset=svhn", "optimizer.rho=0.3"])
    assert config.optimizer.rho == 0.3


def test_dataset_that_a_preset_is_not_for_is_one_clear_mistake(command) -> None:  # type: ignore[no-untyped-def]
    code, out, err = command("train.py", "experiment=table1/wrn_28_10_200", "dataset=svhn")
    assert (code, out) == (2, "")
    assert err == (
        "error: dataset=svhn: this experiment is for cifar10 and cifar100; choose one of these, or give the "
        "keys that it sets by dataset yourself\n"
    )


@pytest.mark.parametrize("resolved", [False, True])
def test_config_of_a_preset_is_printed(command, resolved: bool) -> None:  # type: ignore[no-untyped-def]
    arguments = ["experiment=table1/wrn_28_10_200", "dataset=cifar100", "--cfg", "job"]
    code, out, err = command("train.py", *arguments, *(["--resolve"] if resolved else []))
    assert (code, err) == (0, "")
    assert ("rho: 0.1" if resolved else "rho: ${by_dataset:") in out


def test_preset_composes_to_the_same_twice_in_one_process() -> None:
    def whole() -> TrainConfig:
        return composed(["experiment=table1/pyramidnet_272"])

    assert whole() == whole()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        assert "${by_dataset" in str(compose("train", ["experiment=table1/pyramidnet_272"]).optimizer)
