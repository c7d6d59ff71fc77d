"""Bootstrapping and evaluation of runs, as a user meets them."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from sam import build, build_data
from sam.data.label_files import read_labels
from sam.run_directory import read_config, read_result
from tests.conftest import TINY
from tests.test_train import metrics, only_run

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run_directory(out):
    """Return the run directory that train.py names last."""
    return pathlib.Path(out.splitlines()[-1].strip())


@pytest.fixture
def source(command, tmp_path):
    """Return the directory of a run that has ended, outside of the other outputs."""
    code, out, _ = command("train.py", *TINY, "outputs=source", "optimizer=sgd", "dataset.label_noise=0.5")
    assert code == 0
    return tmp_path / run_directory(out)


def predictions(directory):
    """Return what the network of a run says of the training images, image by image."""
    config = read_config(directory)
    plain = dataclasses.replace(config.dataset, label_file=None)
    data = build_data.dataset(plain, config.seed)
    network = build.model(config.model, data, torch.device("cpu")).eval()
    network.load_state_dict(torch.load(directory / "checkpoint.pt", weights_only=True)["model"])
    pixels = data.train.pixels.permute(0, 3, 1, 2) / 255
    shape = (1, 3, 1, 1)
    images = (pixels - torch.tensor(data.mean).view(shape)) / torch.tensor(data.std).view(shape)
    with torch.no_grad():
        return [int(network(image[None]).argmax()) for image in images]


def test_relabelled_run_trains_on_what_the_ended_run_predicts(command, source):
    code, out, _ = command("train.py", *TINY, f"dataset.relabel_from={source}", "augmentation=basic")
    assert code == 0
    directory = run_directory(out)
    clean, trained = read_labels(directory / "labels.npz")
    assert trained.tolist() == predictions(source)
    assert clean.tolist() == [number % 4 for number in range(32)]
    share = 100 * (trained != clean).double().mean().item()
    assert share > 0
    command("evaluate.py", f"run={source}", "split=train_clean")
    record = json.loads((source / "evaluation-train_clean.json").read_text())
    assert record["error_pct"] == pytest.approx(share)


def test_relabelled_run_goes_on_without_the_run_that_labelled(command, source, tmp_path):
    arguments = [*TINY, f"dataset.relabel_from={source}"]
    _, out, _ = command("train.py", *arguments)
    directory = run_directory(out)
    shutil.rmtree(tmp_path / "source")
    (directory / "result.json").unlink()
    code, _, err = command("train.py", *arguments)
    assert (code, err) == (0, "")
    code, _, _ = command("evaluate.py", f"run={directory}", "split=train")
    assert code == 0
    _, trained = read_labels(directory / "labels.npz")
    wrong = np.not_equal(predictions(directory), trained.numpy()).mean()
    record = json.loads((directory / "evaluation-train.json").read_text())
    assert record["error_pct"] == pytest.approx(100 * wrong)


@pytest.mark.parametrize("fault", ["missing", "unfinished", "other classes", "not a run"])
def test_relabelling_from_a_run_that_cannot_is_a_mistake_of_the_user(command, source, tmp_path, fault):
    changes = []
    if fault == "missing":
        source = tmp_path / "nowhere"
        message = f"dataset.relabel_from={source} is no run directory: {source}/config.yaml is missing"
    elif fault == "unfinished":
        (source / "result.json").unlink()
        message = f"dataset.relabel_from={source}: that run has not ended; let it end first"
    elif fault == "other classes":
        changes = ["dataset.num_classes=3"]
        message = (
            f"dataset.relabel_from={source}: that run has dataset.num_classes=4, this one 3; name a run on "
            "the same dataset"
        )
    else:
        (source / "checkpoint.pt").unlink()
        message = f"run={source} has no checkpoint yet; train it first"
    code, out, err = command("train.py", *TINY, *changes, f"dataset.relabel_from={source}")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "outputs").exists()


def test_labels_that_were_stored_for_another_dataset_are_refused(command, source):
    arguments = [*TINY, f"dataset.relabel_from={source}"]
    _, out, _ = command("train.py", *arguments)
    directory = run_directory(out)
    (directory / "result.json").unlink()
    np.savez(directory / "labels.npz", clean=np.zeros(3, dtype=np.int64), trained=np.zeros(3, dtype=np.int64))
    code, _, err = command("train.py", *arguments)
    assert code == 2
    assert "labels.npz: it has 3 labels, the dataset 32 training images" in err


def test_run_does_not_go_on_with_other_labels_than_it_began_with(command, tmp_path):
    arguments = [*TINY, "dataset.label_file=labels.npy"]
    np.save(tmp_path / "labels.npy", (np.arange(32) + 1) % 4)
    _, out, _ = command("train.py", *arguments)
    directory = run_directory(out)
    (directory / "result.json").unlink()
    np.save(tmp_path / "labels.npy", (np.arange(32) + 2) % 4)
    code, _, err = command("train.py", *arguments)
    assert code == 2
    assert (
        "labels.npz: the training labels are no longer those that this run began with; put them back" in err
    )
    assert command("train.py", *arguments, "force=true")[0] == 0
    assert read_labels(directory / "labels.npz")[1].tolist() == [(n + 2) % 4 for n in range(32)]


@pytest.mark.parametrize("split", ["test", "train", "train_clean"])
def test_run_with_labels_from_a_file_is_evaluated_without_it(command, tmp_path, split):
    np.save(tmp_path / "labels.npy", (np.arange(32) + 1) % 4)
    code, out, _ = command("train.py", *TINY, "dataset.label_file=labels.npy")
    assert code == 0
    directory = run_directory(out)
    (tmp_path / "labels.npy").unlink()
    assert command("evaluate.py", f"run={directory}", f"split={split}")[0] == 0
    record = json.loads((directory / f"evaluation-{split}.json").read_text())
    if split != "test":
        shift = 1 if split == "train" else 0
        wrong = np.not_equal(predictions(directory), (np.arange(32) + shift) % 4).mean()
        assert record["error_pct"] == pytest.approx(100 * wrong)


def test_run_with_wrong_labels_records_them_and_its_errors_against_both(command, tmp_path):
    code, _, _ = command("train.py", *TINY, "dataset.label_noise=0.5", "optimizer.lr=0.02", "epochs=2")
    assert code == 0
    directory = only_run(tmp_path)
    clean, trained = read_labels(directory / "labels.npz")
    assert int((clean != trained).sum()) == 16
    row = metrics(directory)[-1]
    assert float(row["train_clean_error_pct"]) == read_result(directory)["train_clean_error_pct"]
    assert row["train_clean_error_pct"] != row["train_error_pct"]
    for split, labels in (("train", trained), ("train_clean", clean)):
        command("evaluate.py", f"run={directory}", f"split={split}")
        wrong = np.not_equal(predictions(directory), labels.numpy()).mean()
        record = json.loads((directory / f"evaluation-{split}.json").read_text())
        assert record["error_pct"] == pytest.approx(100 * wrong)


def test_run_with_true_labels_has_no_error_against_others(command, tmp_path):
    command("train.py", *TINY)
    directory = only_run(tmp_path)
    assert not (directory / "labels.npz").exists()
    assert metrics(directory)[-1]["train_clean_error_pct"] == ""
    assert read_result(directory)["train_clean_error_pct"] is None


@pytest.mark.ddp
def test_two_processes_relabel_alike_and_draw_their_own_gates(command, source, tmp_path):
    arguments = [
        *TINY,
        f"dataset.relabel_from={source}",
        "m=4",
        "outputs=two",
        "model=pyramidnet_110_shakedrop",
    ]
    arguments += ["model.depth=11", "model.width=4", "model.alpha=3"]
    arguments += ["augmentation=autoaugment", "augmentation.mixup_alpha=1", "runtime.workers=1"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    ended = subprocess.run(
        [*launch, str(ROOT / "train.py"), *arguments],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    directory = only_run(tmp_path / "two")
    _, trained = read_labels(directory / "labels.npz")
    assert trained.tolist() == predictions(source)
    states = torch.load(directory / "checkpoint.pt", weights_only=True)["random"]
    assert len(states) == 2
    assert not torch.equal(states[0]["cpu"], states[1]["cpu"])
