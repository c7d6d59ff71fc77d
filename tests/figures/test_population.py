"""Tests of sam/figures/population.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam.figures.population import generalisation_gap, hyperparameters, populations
from sam.record.reader import Run
from sam.record.run_files import resolved
from tests.figures.drawn import groups_of
from tests.record.analysis_files import rise_row, write_analysis, write_population
from tests.record.run_directories import make_config, make_result, typed_config, write_run

NUMBERS = {
    "test_error_pct": 10.0,
    "train_error_pct": 45.0,
    "train_clean_error_pct": 4.0,
}


def _run(numbers: dict[str, Any], **changes: Any) -> Run:
    config = typed_config(**changes)
    return Run(Path("run"), resolved(config), {}, 0, make_result(config, **numbers))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, -35.0),
        # Of 90 % correct predictions, 60 % stay correct; of 10 % wrong ones, a ninth of 40 % become correct.
        ({"dataset__label_noise": 0.4}, pytest.approx(100 - 54 - 4 / 9 - 45)),
        ({"dataset__label_noise": 0.4, "dataset__label_noise_kind": "asymmetric"}, None),
        # Labels from another source may also have label noise.
        ({"dataset__label_file": "human.npz"}, None),
        ({"dataset__label_noise": 0.4, "dataset__label_file": "human.npz"}, None),
        ({"dataset__label_noise": 0.4, "dataset__relabel_from": "outputs/run"}, None),
    ],
)
def test_gap_compares_labels_of_one_kind(changes: dict[str, Any], expected: float | None) -> None:
    assert generalisation_gap(_run(NUMBERS, **changes)) == expected


@pytest.mark.parametrize("over", ["other_classes", "all_classes"])
def test_gap_of_noisy_labels_is_that_of_spoiled_test_labels(over: str) -> None:
    generator = np.random.default_rng(0)
    true = generator.integers(0, 10, 400_000)
    predicted = np.where(generator.random(len(true)) < 0.1, (true + 3) % 10, true)
    shift = (
        generator.integers(1, 10, len(true))
        if over == "other_classes"
        else generator.integers(0, 10, len(true))
    )
    labels = np.where(generator.random(len(true)) < 0.4, (true + shift) % 10, true)
    numbers = {**NUMBERS, "test_error_pct": 100 * float((predicted != true).mean())}
    run = _run(numbers, dataset__label_noise=0.4, dataset__label_noise_over=over)
    expected = 100 * float((predicted != labels).mean()) - 45
    assert generalisation_gap(run) == pytest.approx(expected, abs=0.2)


def test_hyperparameters_are_the_keys_that_differ() -> None:
    configs = [
        make_config(optimizer__lr=0.1, optimizer__weight_decay=5e-4, seed=0),
        make_config(optimizer__lr=0.1, optimizer__weight_decay=1e-4, seed=1),
        make_config(optimizer__lr=0.2, optimizer__weight_decay=1e-4, seed=2, runtime__threads=3),
    ]
    found = hyperparameters(configs)
    assert list(found) == ["optimizer.lr", "optimizer.weight_decay"]
    assert found["optimizer.lr"] == ["0.1", "0.1", "0.2"]


def test_rho_of_sgd_is_no_hyperparameter() -> None:
    unread = [make_config(optimizer__rho=rho) for rho in (0.05, 0.1)]
    assert hyperparameters(unread) == {}
    methods = [*unread, *(make_config(optimizer__name="sam", optimizer__rho=rho) for rho in (0.05, 0.1))]
    found = hyperparameters(methods)
    # The other keys of SAM divide the runs in the same way as its name, so they are left out.
    assert found == {
        "optimizer.name": ["sgd", "sgd", "sam", "sam"],
        "optimizer.rho": ["None", "None", "0.05", "0.1"],
    }


def test_keys_that_part_runs_alike_count_once() -> None:
    configs = [make_config(model__name=f"wrn_{depth}", model__depth=depth) for depth in (16, 28)]
    assert list(hyperparameters(configs)) == ["model.depth"]


def test_population_holds_the_last_sharpness_and_gap_of_each_run(tmp_path: Path) -> None:
    (population,) = populations(write_population(tmp_path))
    assert population.dataset == "cifar10"
    assert len(population.gaps) == 8 and len(set(population.conditions)) == 4
    np.testing.assert_allclose(population.sharpness[1], np.square(population.gaps))
    assert sorted(population.sharpness) == [1, 500]
    assert sorted(population.hyperparameters) == ["optimizer.lr", "optimizer.name"]
    sam_gaps = [gap for gap, is_sam in zip(population.gaps, population.is_sam, strict=True) if is_sam]
    assert sorted(sam_gaps) == [11, 12, 21, 22]


def test_population_leaves_out_runs_without_gap_or_final_sharpness(tmp_path: Path) -> None:
    write_population(tmp_path)
    write_run(tmp_path, seed=7)
    early = write_run(tmp_path, seed=8)
    write_analysis(early, "sharpness", {"rows": [rise_row(1, 1.0), rise_row(500, 1.0)]}, 100)
    lacking = write_run(tmp_path, {"train_error_pct": None}, seed=9)
    write_analysis(lacking, "sharpness", {"rows": [rise_row(1, 1.0), rise_row(500, 1.0)]})
    (population,) = populations(groups_of(tmp_path))
    assert len(population.gaps) == 8
