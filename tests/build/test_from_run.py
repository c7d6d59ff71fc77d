"""Bootstrapping and evaluation of runs, as a user meets them."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
import timm
import torch

from sam.build.data import load_dataset
from sam.build.network import make_network
from sam.data.label_files import read_labels
from sam.record.directory import read_config, read_result, write_result
from tests.quick_process import TRAIN, run
from tests.test_train import metrics, only_run, without_times
from tests.tiny import TINY


def run_directory(out):
    """Return the run directory that train.py names last."""
    return pathlib.Path(out.splitlines()[-1].strip())


@pytest.fixture
def source(command, tmp_path):
    """Return the directory of a run that has ended, outside of the other outputs."""
    code, out, _ = command("train.py", *TINY, "outputs=source", "optimizer=sgd", "dataset.label_noise=0.5")
    assert code == 0
    return tmp_path / run_directory(out)


def predictions(directory, split="train", statistics=None):
    """Return what the network of a run says of the images of a split, image by image.

    statistics: mean and standard deviation of a channel; None means those of the dataset.
    """
    config = read_config(directory)
    plain = dataclasses.replace(config.dataset, label_file=None)
    data = load_dataset(plain, config.seed)
    network = make_network(dataclasses.replace(config.model, weights=None), data, torch.device("cpu")).eval()
    network.load_state_dict(torch.load(directory / "checkpoint.pt", weights_only=True)["model"])
    pixels = getattr(data, split).pixels.permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in statistics or (data.mean, data.std))
    with torch.no_grad():
        return [int(network(image[None]).argmax()) for image in (pixels - mean) / std]


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


@pytest.mark.slow
def test_forced_relabelled_run_asks_the_other_run_again(command, source, tmp_path):
    arguments = [*TINY, f"dataset.relabel_from={source}"]
    _, out, _ = command("train.py", *arguments)
    directory = run_directory(out)
    # In the place of the source comes a run that has learnt something else.
    _, out, _ = command("train.py", *TINY, "outputs=other", "optimizer.lr=0.3", "epochs=2")
    shutil.rmtree(source)
    shutil.copytree(tmp_path / run_directory(out), source)
    _, before = read_labels(directory / "labels.npz")
    assert before.tolist() != predictions(source)
    assert command("train.py", *arguments, "force=true")[0] == 0
    _, after = read_labels(directory / "labels.npz")
    assert after.tolist() == predictions(source)


@pytest.fixture
def finetuned(command, tmp_path):
    """Return the directory of a run from trained weights whose file is there no more."""
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet", num_classes=4).state_dict(), tmp_path / "f.pth")
    model = ["model=timm", "model.timm_name=test_efficientnet", "model.weights=f.pth"]
    # It learns next to nothing, so that it goes on naming all four classes.
    model += ["model.freeze_statistics=true", "outputs=finetuned", "optimizer.lr=1e-5", "seed=3"]
    plain = [item for item in TINY if not item.startswith("model.")]
    code, out, err = command("train.py", *plain, *model)
    assert code == 0, err
    (tmp_path / "f.pth").unlink()
    return tmp_path / run_directory(out)


def test_finetuned_run_is_evaluated_without_the_file_it_began_from(command, finetuned):
    code, _, err = command("evaluate.py", f"run={finetuned}")
    assert (code, err) == (0, "")
    record = json.loads((finetuned / "evaluation-test.json").read_text())
    row = metrics(finetuned)[-1]
    assert record["loss"] == float(row["test_loss"])
    assert record["error_pct"] == float(row["test_error_pct"])


def test_finetuned_run_labels_with_its_own_normalisation_and_without_its_file(command, finetuned):
    code, out, err = command("train.py", *TINY, f"dataset.relabel_from={finetuned}")
    assert code == 0, err
    _, labels = read_labels(run_directory(out) / "labels.npz")
    published = timm.get_pretrained_cfg("test_efficientnet")
    own = predictions(finetuned, statistics=(published.mean, published.std))
    assert own != predictions(finetuned), "the normalisation makes a difference"
    assert labels.tolist() == own


@pytest.mark.parametrize("fault", ["missing", "unfinished", "diverged", "not a run"])
def test_relabelling_from_a_run_that_cannot_is_a_mistake_of_the_user(command, source, tmp_path, fault):
    if fault == "missing":
        source = tmp_path / "nowhere"
        message = f"dataset.relabel_from={source} is not a run directory: {source}/config.yaml is missing"
    elif fault == "unfinished":
        (source / "result.json").unlink()
        message = f"dataset.relabel_from={source}: that run has not ended; let it end first"
    elif fault == "diverged":
        write_result(source, {**read_result(source), "status": "diverged"})
        message = f"dataset.relabel_from={source}: that run has diverged; name another"
    else:
        (source / "checkpoint.pt").unlink()
        message = f"run={source} has no checkpoint yet; train it first"
    code, out, err = command("train.py", *TINY, f"dataset.relabel_from={source}")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("key", "theirs", "ours", "more"),
    [
        ("name", "synthetic", "other", []),
        (
            "reader",
            "synthetic",
            "fashion_mnist_mini",
            ["dataset.image_size=null", "dataset.num_classes=null"],
        ),
        ("image_size", "12", "16", []),
        ("num_classes", "4", "3", []),
    ],
)
def test_relabelling_from_a_run_on_another_dataset_is_refused(
    command, source, tmp_path, key, theirs, ours, more
):
    changes = [f"dataset.{key}={ours}", *more]
    code, out, err = command("train.py", *TINY, *changes, f"dataset.relabel_from={source}")
    assert (code, out) == (2, "")
    assert err == (
        f"error: dataset.relabel_from={source}: that run has dataset.{key}={theirs}, this one {ours}; "
        "name a run on the same dataset\n"
    )
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
    if split == "test":
        expected = float(metrics(directory)[-1]["test_error_pct"])
    else:
        shift = 1 if split == "train" else 0
        expected = 100 * np.not_equal(predictions(directory), (np.arange(32) + shift) % 4).mean()
    assert record["error_pct"] == pytest.approx(expected)


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


def train_in_two_processes(folder, *arguments):
    """Return the directory of a run of two processes."""
    ended = run([TRAIN, *arguments, "runtime=ddp", "runtime.processes=2", "outputs=two"], folder)
    assert ended.returncode == 0, ended.stderr
    return only_run(folder / "two")


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_relabel_alike(command, source, tmp_path):
    # Only the first process writes labels: what the other one trains on shows in the weights and errors.
    arguments = [*TINY, f"dataset.relabel_from={source}", "m=4", "epochs=2", "optimizer.lr=0.01"]
    two = train_in_two_processes(tmp_path, *arguments)
    _, out, _ = command("train.py", *arguments)
    one = run_directory(out)
    for row, other in zip(without_times(metrics(one)), without_times(metrics(two)), strict=True):
        assert row["train_clean_error_pct"]
        for key in row:
            if row[key]:
                # float32 sums in another order, grown over four updates
                assert float(row[key]) == pytest.approx(float(other[key]), rel=2e-3, abs=1e-4), key
    states = [torch.load(run / "checkpoint.pt", weights_only=True)["model"] for run in (one, two)]
    for key, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][key], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_with_workers_draw_their_own_gates(tmp_path):
    arguments = [*TINY, "m=4", "model=pyramidnet_110_shakedrop", "model.depth=11", "model.width=4"]
    arguments += ["model.alpha=3", "augmentation=autoaugment", "augmentation.mixup_alpha=1"]
    arguments += ["augmentation.auto_augment_draws=image"]
    directory = train_in_two_processes(tmp_path, *arguments, "runtime.workers=1")
    states = torch.load(directory / "checkpoint.pt", weights_only=True)["random"]
    assert len(states) == 2
    assert not torch.equal(states[0]["cpu"], states[1]["cpu"])
