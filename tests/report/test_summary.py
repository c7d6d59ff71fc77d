"""Tests of sam/report/summary.py."""

from pathlib import Path

from sam.paper.cells import CELLS
from sam.report.comparison import read_comparison
from sam.report.summary import MAX_SETTINGS, in_short
from tests.record.run_directories import write_run


def test_sentence_compares_at_equal_epochs_and_at_equal_passes(tmp_path: Path) -> None:
    for seed, shift in enumerate((0.0, 0.1, -0.1)):
        passes = {"steps": 100, "forward_backward_passes": 100}
        write_run(tmp_path, {**passes, "test_error_pct": 5.0}, seed=seed)
        write_run(tmp_path, {**passes, "test_error_pct": 3.1}, seed=seed, epochs=400)
        passes["forward_backward_passes"] = 200
        write_run(tmp_path, {**passes, "test_error_pct": 3.0 + shift}, seed=seed, optimizer__name="sam")
    assert in_short(read_comparison([tmp_path], CELLS)) == [
        "cifar10, wrn_28_10, basic, epochs 200, batch 256, m 32 (correct labels): SAM rho=0.05 has a lower "
        "error than SGD: -2.00 ± 0.25 points, n = 3. At equal passes, it is neither clearly better nor "
        "clearly worse than SGD with 400 epochs: -0.10 ± 0.25 points, n = 3."
    ]


def test_sentence_is_about_the_condition_with_the_most_pairs_and_names_wrong_labels(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, {"test_error_pct": 5.0}, seed=seed, dataset__label_noise=0.4)
        for rho in (0.05, 0.1) if seed else (0.1,):
            sam = {"optimizer__name": "sam", "optimizer__rho": rho, "dataset__label_noise": 0.4}
            write_run(tmp_path, {"test_error_pct": 6.0}, seed=seed, **sam)
    (sentence,) = in_short(read_comparison([tmp_path], CELLS))
    assert "(wrong labels): SAM rho=0.1 has a higher error than SGD: +1.00 ± 0.00 points, n = 3." in sentence


def test_held_out_errors_and_single_seeds_have_no_sentence(tmp_path: Path) -> None:
    for name in ("sgd", "sam"):
        write_run(tmp_path, seed=0, optimizer__name=name)
        for seed in (0, 1):
            write_run(tmp_path, seed=seed, optimizer__name=name, dataset__validation="last")
    assert in_short(read_comparison([tmp_path], CELLS)) == []


def test_many_settings_are_counted(tmp_path: Path) -> None:
    for epochs in range(1, MAX_SETTINGS + 3):
        for seed in (0, 1):
            for name in ("sgd", "sam"):
                write_run(tmp_path, seed=seed, optimizer__name=name, epochs=epochs)
    lines = in_short(read_comparison([tmp_path], CELLS))
    assert (len(lines), lines[-1]) == (MAX_SETTINGS + 1, "2 more settings: see the tables below.")
