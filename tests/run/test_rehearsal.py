"""Tests of sam/run/rehearsal.py: --smoke in real processes, --dry-run with simulated times."""

import math
from pathlib import Path

import pytest

from sam.build.data import load_dataset
from sam.config.compose import composed
from sam.paper.runs import on_random_data
from sam.run import rehearsal as rehearse
from sam.run.trial import Trial
from scripts import reproduce
from tests.paper.made_up_cells import cell
from tests.run import trials


@pytest.mark.slow
def test_smoke_passes_what_trains_and_fails_what_does_not(use_cells, capsys):
    diverging = "optimizer.lr=1e30 optimizer.clip_norm=null"
    use_cells(
        cell("table1/good/sgd"),
        cell("table1/diverging/sgd", diverging),
        cell("table1/raising/sam", "model=timm model.width=16 model.timm_name=no_such"),
        cell("table4/noise40/good/bootstrap_sam", "epochs=0", labels_from="dataset.label_noise=0.4"),
    )
    assert reproduce.main(["table1", "table4", "--smoke", "runtime.threads=1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[1 of 4] pass table1/good/sgd"
    assert lines[1].startswith("[2 of 4] FAIL table1/diverging/sgd: the test loss is nan")
    assert lines[2].startswith("[3 of 4] FAIL table1/raising/sam: ConfigError: ")
    assert "no_such" in lines[2]
    assert lines[3] == "[4 of 4] pass table4/noise40/good/bootstrap_sam"
    assert lines[4].startswith("2 of 4 pass, ")


def test_smoke_goes_on_after_a_process_that_was_killed(use_cells, capsys, monkeypatch):
    use_cells(cell("table1/killed/sgd", "optimizer.lr=1"), cell("table1/raising/sgd", "optimizer.lr=2"))
    monkeypatch.setattr(rehearse, "run_trial", trials.run_trial)
    assert reproduce.main(["table1", "--smoke"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "[1 of 2] FAIL table1/killed/sgd: the process was killed, probably for lack of memory",
        "[2 of 2] FAIL table1/raising/sgd: ValueError: lr is 2, updates 2",
    ]
    assert lines[2].startswith("0 of 2 pass, ") and lines[2].endswith(" minutes, peak memory 0.0 GiB")


@pytest.mark.parametrize("validation", ["none", "random"])
def test_rehearsal_makes_folders_with_enough_images(validation, monkeypatch):
    given = composed(["experiment=table3/efficientnet_b7", f"dataset.validation={validation}"])
    small = on_random_data(given, m=2, num_micro_batches=2, num_batches=2, largest_size=8)
    with rehearse.Rehearsal(fresh_process=False) as rehearsal:
        config = rehearsal._with_images(small)
        data = load_dataset(config.dataset, config.seed)
        assert (len(data.train), len(data.test)) == (small.dataset.num_train, 4)
        assert config.runtime.workers == 0
        folder = Path(config.dataset.root)
        assert rehearsal._with_images(small).dataset.root == str(folder)
    assert not folder.exists()


@pytest.fixture
def stub(monkeypatch):
    """Replace trials by simulated times; return the configs that were tried."""
    tried = []

    def use(seconds_per_image, evaluation_seconds=0.001):
        def run_trial(self, config, num_updates):
            tried.append((config.optimizer.name, config.batch_size, num_updates))
            if config.optimizer.name not in seconds_per_image:
                return "MemoryError: too large"
            update_seconds = seconds_per_image[config.optimizer.name] * config.batch_size
            seconds = update_seconds if num_updates else math.nan
            return Trial(2.3, seconds, evaluation_seconds, 2048.0, "a device")

        monkeypatch.setattr(rehearse.Rehearsal, "run_trial", run_trial)
        return tried

    return use


WRN = ["--dataset", "cifar10", "--model", "wrn_28_10", "--augmentation", "basic"]


def test_dry_run_multiplies_updates_and_images_by_their_seconds(stub, capsys):
    tried = stub({"sgd": 1 / 128, "sam": 1 / 64})
    assert reproduce.main(["table1", *WRN, "--epochs", "200", "--seeds", "2", "--dry-run"]) == 0
    out = capsys.readouterr().out
    # Two micro-batches of 32 are fast, so the whole batch is timed, once per optimizer.
    assert tried == [("sgd", 64, 2), ("sgd", 256, 3), ("sam", 64, 2), ("sam", 256, 3)]
    assert "  wrn_28_10, sgd, batch 256, m 32: 2.00 s, 2.0 GiB (a device)\n" in out
    # 200 epochs: (39,000 updates x 2 s + 200 x 10,000 images x 0.001 s) / 3,600 = 22.2 h; SAM 4 s: 43.9 h.
    assert "  table1/cifar10/wrn_28_10_200/basic/sgd: 22.22 x 2 + 44.44 x 2 = 133.3\n" in out
    assert "  table1/cifar10/wrn_28_10_200/basic/sam: 43.89 x 2 = 87.8\n" in out
    assert "\n2 conditions, 6 runs: 221 hours (9 days) one after the other, peak memory 2.0 GiB\n" in out
    assert "not counted: no update" not in out


def test_dry_run_counts_shared_runs_once_in_the_sum(stub, capsys):
    stub({"sgd": 1 / 256}, evaluation_seconds=0)
    arguments = ["table1", "table9", *WRN, "--epochs", "1800", "--method", "sgd", "--seeds", "1"]
    assert reproduce.main([*arguments, "--dry-run"]) == 0
    out = capsys.readouterr().out
    # 1,800 epochs x 195 updates x 1 s = 97.5 h.
    for table in ("table1", "table9"):
        assert f"  {table}/cifar10/wrn_28_10_1800/basic/sgd: 97.50 x 1 + 195.00 x 1 = 292.5\n" in out
    assert "\n2 conditions, 2 runs: 292 hours (12 days)" in out


def test_dry_run_times_two_micro_batches_if_updates_are_long(stub, capsys):
    tried = stub({"sam": 1.0}, evaluation_seconds=0)
    arguments = ["table1", *WRN, "--epochs", "200", "--method", "sam", "--seeds", "1", "--dry-run"]
    assert reproduce.main(arguments) == 0
    assert tried == [("sam", 64, 2)]
    out = capsys.readouterr().out
    assert ": 256.00 s, 2.0 GiB (a device, 2 of 8 micro-batches timed)\n" in out
    assert "/sam: 2,773.33 x 1 = 2,773.3\n" in out  # 39,000 x 256 s


def test_dry_run_without_updates_times_only_the_evaluation(stub, capsys):
    tried = stub({"sgd": 1.0}, evaluation_seconds=0.72)
    arguments = ["table3", "--dataset", "imagenet", "--model", "efficientnet_b7", "--method"]
    assert reproduce.main([*arguments, "checkpoint", "--seeds", "1", "--dry-run"]) == 0
    assert [number for _, _, number in tried] == [0]
    out = capsys.readouterr().out
    assert "(a device, evaluation only)\n" in out and "nan" not in out
    assert "/checkpoint: 10.00 x 1 = 10.0\n" in out  # 50,000 images x 0.72 s


def test_dry_run_says_what_could_not_be_timed_and_fails(stub, capsys):
    stub({"sgd": 1 / 256})
    arguments = ["table1", *WRN, "--epochs", "200", "--seeds", "1", "--dry-run"]
    assert reproduce.main(arguments) == 1
    out = capsys.readouterr().out
    assert "  wrn_28_10, sam, batch 256, m 32: MemoryError: too large\n" in out
    assert "/sam: unknown\n" in out
    assert "\n2 conditions, 3 runs: 34 hours" in out
    assert "\nnot counted: 1 run whose updates could not be timed\n" in out
