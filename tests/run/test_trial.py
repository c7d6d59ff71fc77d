"""Tests of sam/run/trial.py: a trial really trains and evaluates, and returns its measurements."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from sam.build.data import load_dataset
from sam.config.schema import TrainConfig
from sam.data.image_files import ImageFiles
from sam.run.trial import run_trial, write_images
from tests.conftest import changed

TINY = {
    "dataset.name": "cifar10",
    "dataset.reader": "synthetic",
    "dataset.num_train": 40,
    "dataset.num_test": 16,
    "dataset.image_size": 12,
    "dataset.num_classes": 4,
    "model.width": 4,
    "optimizer.lr": 0.05,
    "batch_size": 8,
    "m": 4,
    "runtime.threads": 1,
    "runtime.workers": 0,
}


@pytest.fixture(autouse=True)
def threads():
    """Restore the number of threads after a test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_trial_trains_and_evaluates(optimizer: str) -> None:
    config = changed({**TINY, "optimizer.name": optimizer})
    untrained, one, five = (run_trial(config, number) for number in (0, 1, 5))
    # Noisy pictures of four very different classes: one or two updates already have an effect.
    assert five.test_loss < one.test_loss < untrained.test_loss < 10
    for trial in (one, five):
        assert 0 < trial.update_seconds < 60
    assert 0 < five.evaluation_seconds < 60
    assert five.peak_memory_mib > 1
    assert five.device == "1 CPU threads"


def test_trial_without_updates_only_evaluates() -> None:
    trial = run_trial(changed(TINY), 0)
    assert math.isnan(trial.update_seconds)
    assert math.isfinite(trial.test_loss)
    assert trial.evaluation_seconds > 0
    # The initial weights do not depend on the optimizer; the trained weights do.
    assert run_trial(changed({**TINY, "optimizer.name": "sgd"}), 0).test_loss == trial.test_loss


def test_trial_gives_the_same_loss_again() -> None:
    assert run_trial(changed(TINY), 2).test_loss == run_trial(changed(TINY), 2).test_loss


def test_trial_of_a_learning_rate_that_diverges_has_no_finite_loss() -> None:
    config = changed({**TINY, "optimizer.lr": 1e30, "optimizer.clip_norm": None})
    assert not math.isfinite(run_trial(config, 3).test_loss)


def test_seconds_of_an_update_leave_out_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    # Three updates of 9, 1 and 3 seconds, then an evaluation of 32.
    clock = iter([0, 9, 10, 11, 20, 23, 30, 62])
    monkeypatch.setattr("sam.run.trial.time.perf_counter", lambda: next(clock))
    trial = run_trial(changed(TINY), 3)
    assert (trial.update_seconds, trial.evaluation_seconds) == (2, 2)


def from_folder(folder: Path) -> TrainConfig:
    config = changed({**TINY, "dataset.reader": "image_folder", "dataset.root": str(folder)})
    dataset = dataclasses.replace(config.dataset, num_classes=None)
    return dataclasses.replace(config, dataset=dataset)


def test_written_images_are_a_folder_that_a_trial_runs_on(tmp_path: Path) -> None:
    write_images(tmp_path, 40, 16, 4)
    for in_memory in (False, True):
        config = from_folder(tmp_path)
        config.dataset.in_memory = in_memory
        trial = run_trial(config, 2)
        assert math.isfinite(trial.test_loss)
        assert trial.update_seconds > 0


def test_written_images_are_dealt_out_to_the_classes_in_turn(tmp_path: Path) -> None:
    write_images(tmp_path, 10, 7, 3)
    chosen = dataclasses.replace(
        from_folder(tmp_path).dataset, in_memory=False, num_train=None, num_test=None
    )
    data = load_dataset(chosen, 0)
    assert isinstance(data.train, ImageFiles)
    assert data.class_names == ("0000", "0001", "0002")
    assert data.train.targets.bincount().tolist() == [4, 3, 3]
    assert data.test.targets.bincount().tolist() == [3, 2, 2]
    pictures = {path.read_bytes() for path in tmp_path.rglob("*.jpg")}
    assert len(pictures) == 17
