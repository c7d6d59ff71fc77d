"""Two processes on one CPU train like one."""

import os
import pathlib
import subprocess
import sys

import pytest
import torch

from sam.run_directory import read_result
from sam.training.distributed import World, start_world
from tests.conftest import TINY
from tests.test_train import metrics, only_run

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_single_process_talks_to_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = start_world(torch.device("cpu"))
    assert (world, world.is_main) == (World(0, 1), True)
    tensor = torch.tensor([1.0, 2.0])
    assert torch.equal(world.sum_(tensor.clone()), tensor)
    world.mean_([tensor])
    assert torch.equal(tensor, torch.tensor([1.0, 2.0]))
    assert world.any(True, torch.device("cpu")) and not world.any(False, torch.device("cpu"))


@pytest.mark.ddp
@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_two_processes_with_the_same_m_train_like_one(tmp_path, optimizer):
    # 15 test images do not divide by two. m = 4: four micro-batches in one process, two in each of two.
    arguments = [*TINY, f"optimizer={optimizer}", "m=4", "epochs=2", "dataset.num_test=15"]
    arguments += ["optimizer.lr=0.01", "augmentation=basic"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launches = {
        "one": [sys.executable, str(ROOT / "train.py")],
        "two": [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            str(ROOT / "train.py"),
        ],
    }
    for name, launch in launches.items():
        ended = subprocess.run(
            [*launch, *arguments, f"outputs={name}"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("epoch 1 of 2") == 1, "only the main process speaks"
    one, two = only_run(tmp_path / "one"), only_run(tmp_path / "two")
    assert read_result(two)["processes"] == 2
    for row, other in zip(metrics(one), metrics(two), strict=True):
        for key in set(row) - {"seconds", "images_per_second"}:
            if row[key]:
                # float32 sums in another order, grown over four updates
                assert float(row[key]) == pytest.approx(float(other[key]), rel=2e-3, abs=1e-4), key
    states = [torch.load(run / "checkpoint.pt", weights_only=True)["model"] for run in (one, two)]
    for key, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][key], rtol=1e-3, atol=1e-4)
