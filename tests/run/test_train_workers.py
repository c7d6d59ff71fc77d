"""Runs whose images come from worker processes: files on disk, and AutoAugment."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from sam.data.images import Images
from sam.data.loading import Loader
from sam.record.directory import locked, read_result
from sam.training.update import Update
from tests.quick_process import TRAIN, QuickProcess
from tests.test_train import metrics, only_run, without_times
from tests.tiny import TINY

FILES = ["dataset=image_folder", "dataset.root=pictures", "dataset.in_memory=false", "dataset.image_size=12"]
FILES += ["model.width=4", "batch_size=4", "runtime.threads=1"]
BY_WORKERS = ["augmentation.auto_augment_draws=image"]  # AutoAugment of images in memory, too


MIXUP_AND_NOISE = ["augmentation.mixup_alpha=1", "dataset.label_noise=0.3"]


@pytest.fixture
def pictures(tmp_path):
    """Make an image folder of two classes: 12 training and 4 test pictures, JPEG, of several sizes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (16 + number, 22, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return tmp_path / "pictures"


def weights(directory):
    return torch.load(directory / "checkpoint.pt", weights_only=True)["model"]


def stopped_and_continued(command, tmp_path, monkeypatch, arguments, ended_in):
    """Check that a stopped and continued run has the bits of a whole one; return the directories of both."""
    assert command("train.py", *arguments, "outputs=whole")[0] == 0
    update, calls = Update.__call__, []

    def dying(self, *batch):
        calls.append(1)
        if len(calls) == ended_in:
            raise KeyboardInterrupt
        return update(self, *batch)

    monkeypatch.setattr(Update, "__call__", dying)
    stopped = [*arguments, "outputs=stopped", "runtime.checkpoint_minutes=1e-9"]
    assert command("train.py", *stopped)[0] == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert command("train.py", *stopped)[0] == 0
    whole, continued = only_run(tmp_path / "whole"), only_run(tmp_path / "stopped")
    one, other = weights(whole), weights(continued)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert without_times(metrics(whole)) == without_times(metrics(continued))
    return whole, continued


@pytest.mark.slow
def test_files_train_the_same_with_any_number_of_workers(command, tmp_path, pictures):
    runs = []
    for workers in (0, 2):
        arguments = [*FILES, "augmentation=inception", f"outputs=with{workers}", "epochs=2"]
        code, _, err = command("train.py", *arguments, f"runtime.workers={workers}")
        assert (code, err) == (0, "")
        runs.append(only_run(tmp_path / f"with{workers}"))
    one, two = map(weights, runs)
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert without_times(metrics(runs[0])) == without_times(metrics(runs[1]))
    code, out, _ = command("evaluate.py", f"run={runs[1]}")
    assert code == 0
    assert f"{float(metrics(runs[1])[-1]['test_error_pct']):.2f} %" in out


@pytest.fixture
def no_garbage_collection():
    """Turn the garbage collector off, so that reference cycles are not freed."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()  # a worker that is still referenced would keep this process alive


@pytest.mark.slow
@pytest.mark.usefixtures("no_garbage_collection")
def test_workers_end_with_the_run(command, tmp_path, pictures):
    before = set(multiprocessing.active_children())
    code, _, _ = command("train.py", "-m", *FILES, "runtime.workers=2", "seed=0,1", "epochs=1")
    assert code == 0
    assert len(list(tmp_path.rglob("result.json"))) == 2
    deadline = time.monotonic() + 30
    while left := set(multiprocessing.active_children()) - before:
        assert time.monotonic() < deadline, f"{len(left)} workers are alive after the end of their runs"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [[], BY_WORKERS, [*BY_WORKERS, *MIXUP_AND_NOISE]])
def test_run_stopped_within_an_epoch_of_auto_augment_goes_on_to_the_same_bits(
    command, tmp_path, monkeypatch, extra
):
    arguments = [*TINY, "augmentation=autoaugment_cutout", "epochs=2", "runtime.workers=1", *extra]
    stopped_and_continued(command, tmp_path, monkeypatch, arguments, ended_in=4)


def test_a_broken_picture_stops_the_run_with_its_name_and_is_read_once_repaired(command, tmp_path, pictures):
    path = pictures / "train" / "dog" / "3.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    arguments = [*FILES, "runtime.workers=1", "epochs=2"]
    code, _, err = command("train.py", *arguments)
    assert code == 2
    assert "dataset=image_folder: pictures/train/dog/3.jpg is not a readable image" in err
    assert "Traceback" not in err
    path.write_bytes(whole)
    assert command("train.py", *arguments)[0] == 0
    assert read_result(only_run(tmp_path))["status"] == "complete"


@pytest.mark.slow
def test_a_sweep_in_which_a_picture_is_broken_ends(tmp_path, pictures):
    # Hydra keeps the error to the end, and with it the run's stack, which refers to the run's workers.
    (pictures / "train" / "dog" / "3.jpg").write_bytes(b"broken")
    # A real process must end although its workers are still referenced.
    arguments = [sys.executable, TRAIN, "-m", *FILES, "runtime.workers=2", "epochs=1"]
    ended = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "3.jpg is not a readable image" in ended.stderr


@pytest.mark.slow
def test_a_killed_run_can_go_on_at_once_although_its_workers_outlive_it(tmp_path):
    arguments = [TRAIN, *TINY, *BY_WORKERS, "augmentation=autoaugment", "runtime.workers=2", "epochs=500"]
    running = QuickProcess(arguments, tmp_path)
    running.stdout.readline()  # wait for the end of the first epoch
    running.stdout.close()  # its workers live longer and keep the other end open
    running.stderr.close()
    running.kill()
    running.communicate()
    (config,) = tmp_path.rglob("config.yaml")
    with locked(config.parent):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_to_all_processes_saves_and_says_how_to_go_on(tmp_path, signal_number, code):
    # Like Ctrl-C in a terminal or the end of a job: the workers get the signal too.
    arguments = [*TINY, *BY_WORKERS, "augmentation=autoaugment", "runtime.workers=2", "epochs=500"]
    running = QuickProcess([TRAIN, *arguments], tmp_path, own_group=True)
    assert "epoch 1 of 500" in running.stdout.readline()
    os.killpg(running.pid, signal_number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == code
    assert err == f"stopped and saved; continue with: {' '.join(['python train.py', *arguments])}\n"
    directory = only_run(tmp_path)
    assert not (directory / "result.json").exists()
    assert torch.load(directory / "checkpoint.pt", weights_only=True)["progress"]["epoch"] >= 1


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_gets_a_signal_goes_on(signal_number):
    before = set(multiprocessing.active_children())
    images = Images(torch.arange(48, dtype=torch.uint8).view(4, 2, 2, 3), torch.zeros(4, dtype=torch.int64))
    loader = Loader(images, [], num_workers=1, pin_memory=False)
    (worker,) = set(multiprocessing.active_children()) - before
    for _ in range(2):
        ((piece,),) = loader([(torch.tensor([2, 0]), torch.tensor([0, 0]))])
        assert torch.equal(piece, images.pixels[[2, 0]])
        os.kill(worker.pid, signal_number)


@pytest.mark.parametrize("recipe", ["default", "released_code", "text"])
@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_every_recipe_trains(command, tmp_path, recipe, optimizer):
    arguments = [*TINY, f"recipe={recipe}", f"optimizer={optimizer}", "augmentation=cutout", "m=8"]
    code, _, _ = command("train.py", *arguments, "model=wrn_16_4", "model.width=1")
    assert code == 0
    assert read_result(only_run(tmp_path))["status"] == "complete"


@pytest.mark.slow
def test_released_code_draws_the_same_weights_in_every_run(command, tmp_path, monkeypatch):
    from sam.run import worker

    drawn = []
    network = worker.draw_network

    def remember(*arguments):
        made = network(*arguments)
        drawn.append(torch.cat([weight.detach().flatten().clone() for weight in made.parameters()]))
        return made

    monkeypatch.setattr(worker, "draw_network", remember)
    for recipe in ("released_code", "default"):
        for seed in (1, 2):
            assert command("train.py", *TINY, f"recipe={recipe}", f"seed={seed}")[0] == 0
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[2], drawn[3])
