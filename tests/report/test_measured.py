"""Tests of sam/report/measured.py."""

from pathlib import Path

import numpy as np
import pytest

from sam.record.analyses import read_arrays
from sam.report.measured import ball, final_rises, gather, largest_comparison, rises, value_of, values_of_list
from tests.figures.drawn import groups_of
from tests.record.analysis_files import rise_row, write_analysis, write_hessian, write_surface
from tests.record.run_directories import write_run

ROWS = {"rows": [rise_row(1, 0.5)]}


def test_gather_sorts_by_condition_seed_and_epoch(tmp_path: Path) -> None:
    for seed in (1, 0):
        directory = write_run(tmp_path, optimizer__name="sam", seed=seed)
        for epoch in (200, 1):
            write_analysis(directory, "sharpness", ROWS, epoch)
    write_run(tmp_path)
    (one,) = gather(groups_of(tmp_path), "sharpness")
    assert one.group.label == "SAM rho=0.05"
    assert {seed: [made.epoch for made in found] for seed, found in one.by_seed.items()} == {
        0: [1, 200],
        1: [1, 200],
    }


def test_gather_keeps_comparable_analyses(tmp_path: Path) -> None:
    for seed, rho in ((0, 0.05), (1, 0.05), (2, 0.1)):
        directory = write_run(tmp_path, seed=seed)
        write_analysis(directory, "sharpness", ROWS, settings={"rho": rho})
        write_analysis(directory, "sharpness", ROWS, 100, settings={"rho": rho}, num_images=seed)
    # Another list of m still counts as comparable.
    write_analysis(directory, "sharpness", ROWS, settings={"rho": 0.05, "m": [2]})
    (one,) = gather(groups_of(tmp_path), "sharpness")
    assert sorted(one.by_seed) == [0, 1, 2]
    assert {(made.settings["rho"], made.record["num_images"]) for made in one.analyses} == {(0.05, 500)}


def test_gather_asks_for_settings_and_says_how_to_make_what_is_missing(tmp_path: Path) -> None:
    directory = write_run(tmp_path)
    write_surface(directory, 1.0)
    groups = groups_of(tmp_path)
    assert len(gather(groups, "landscape", dimensions=2)) == 1
    with pytest.raises(ValueError, match=r"in 1 complete runs.*analysis=landscape analysis.dimensions=1"):
        gather(groups, "landscape", dimensions=1)


def test_largest_comparison_has_most_conditions_then_most_analyses(tmp_path: Path) -> None:
    for lr, epochs in ((0.1, (200,)), (0.2, (1, 200)), (0.3, (1, 2, 3))):
        for name in ("sgd", "sam") if lr < 0.3 else ("sam",):
            directory = write_run(tmp_path, optimizer__name=name, optimizer__lr=lr)
            for epoch in epochs:
                write_analysis(directory, "sharpness", ROWS, epoch)
    found = largest_comparison(gather(groups_of(tmp_path), "sharpness"))
    assert [one.group.label for one in found] == ["SGD", "SAM rho=0.05"]
    assert found[0].group.config["optimizer"]["lr"] == 0.2


def test_rises_leaves_out_what_is_not_finite(tmp_path: Path) -> None:
    rows = [rise_row(1, 0.5), rise_row(4, 0.2, loss_rise=None), "nothing", rise_row(8, 2.0)]
    made = write_analysis(write_run(tmp_path), "sharpness", {"rows": rows})
    assert [tuple(row) for row in rises(made)] == [(1, 1, 0.5, 0.05, 5.0, 500), (8, 1, 2.0, 0.2, 20.0, 62)]


def test_final_rises_merges_analyses_of_one_moment(tmp_path: Path) -> None:
    directory = write_run(tmp_path)
    for m in (4, 1):
        rows = {"rows": [rise_row(m, 1 / m, 2)]}
        write_analysis(directory, "sharpness", rows, settings={"m": [m]})
    steps, (by_seed,) = final_rises(gather(groups_of(tmp_path), "sharpness"))
    assert (steps, {m: row.loss for m, row in by_seed[0].items()}) == (2, {1: 1.0, 4: 0.25})


@pytest.mark.parametrize(
    ("measured", "chosen", "seeds"),
    # Per seed of each condition: the numbers of ascent steps that were measured.
    [
        ([(1, 3), (1, 3), (3,)], 3, [[0, 1], [0]]),
        ([(1, 3), (1, 3), (1, 3)], 1, [[0, 1], [0]]),
        ([(1,), (1,), (3,)], 1, [[0, 1], []]),
    ],
)
def test_final_rises_have_one_number_of_ascent_steps(
    tmp_path: Path, measured: list[tuple[int, ...]], chosen: int, seeds: list[list[int]]
) -> None:
    for (name, seed), all_steps in zip([("sgd", 0), ("sgd", 1), ("sam", 0)], measured):
        directory = write_run(tmp_path, optimizer__name=name, seed=seed)
        write_analysis(directory, "sharpness", {"rows": [rise_row(1, steps, steps) for steps in all_steps]})
    steps, found = final_rises(gather(groups_of(tmp_path), "sharpness"))
    assert steps == chosen
    assert [sorted(by_seed) for by_seed in found] == seeds
    assert {row.loss for by_seed in found for by_m in by_seed.values() for row in by_m.values()} == {chosen}


def test_ball_tells_an_adaptive_one(tmp_path: Path) -> None:
    directory = write_run(tmp_path)
    made = [
        write_analysis(directory, "sharpness", ROWS, settings={"adaptive": adaptive})
        for adaptive in (False, True)
    ]
    assert [ball(one) for one in made] == ["a ball of radius 0.05", "an adaptive ball of radius 0.05"]


def test_broken_results_are_named(tmp_path: Path) -> None:
    made = write_analysis(write_run(tmp_path), "sharpness", {"rows": None, "mean": "x", "cosines": [None]})
    with pytest.raises(ValueError, match=f"{made.path.name}: no finite rise"):
        rises(made)
    with pytest.raises(ValueError, match="its mean is not a finite number"):
        value_of(made, "mean")
    with pytest.raises(ValueError, match="no finite number in its cosines"):
        values_of_list(made, "cosines")


def test_arrays_are_read_in_double_precision(tmp_path: Path) -> None:
    made = write_analysis(
        write_run(tmp_path), "hessian", {}, arrays={"nodes": np.ones((1, 2), dtype=np.float32)}
    )
    (nodes,) = read_arrays(made, "nodes")
    assert (nodes.dtype, nodes.shape) == (np.float64, (1, 2))


def test_broken_arrays_are_named(tmp_path: Path) -> None:
    made = write_hessian(write_run(tmp_path), [3.0, 1.0])
    with pytest.raises(ValueError, match=r"npz cannot be read: .*vectors.*run the analysis again"):
        read_arrays(made, "vectors")
    made.arrays.write_bytes(made.arrays.read_bytes()[:100])
    with pytest.raises(ValueError, match="npz cannot be read"):
        read_arrays(made, "nodes")
    made.arrays.unlink()
    with pytest.raises(ValueError, match="npz cannot be read: .*No such file"):
        read_arrays(made, "nodes")
