"""Runs with epochs=0: nothing is trained, and the initial network is evaluated."""

import io
import json
import sys

import pytest
import timm
import torch

from sam.build.data import load_dataset
from sam.build.network import make_network
from sam.logs.console import ConsoleLog
from sam.models.timm_weights import without_counters
from sam.record.directory import read_config, read_result
from scripts import compare
from tests.build.test_from_run import predictions
from tests.quick_process import TRAIN, run
from tests.test_train import metrics, only_run
from tests.tiny import TINY

NOTHING = [item for item in TINY if not item.startswith(("model.", "epochs="))] + ["epochs=0"]
FILE = ["model=timm", "model.timm_name=test_efficientnet", "model.weights=f.pth"]
MEASURED = {"epoch", "step", "test_loss", "test_error_pct", "test_top5_error_pct", "passes", "seconds"}


@pytest.fixture
def given(tmp_path):
    """Return the trained weights in f.pth, without the step counters, which a run ignores."""
    torch.manual_seed(7)  # not the seed of the run
    network = timm.create_model("test_efficientnet", num_classes=4)
    for _ in range(40):  # so that the running statistics differ from the initial ones
        network(2 * torch.rand(16, 3, 12, 12) - 1)
    torch.save(network.state_dict(), tmp_path / "f.pth")
    return without_counters(network.state_dict())


def weights(directory):
    return torch.load(directory / "checkpoint.pt", weights_only=True)["model"]


@pytest.mark.parametrize(
    "rule", [["optimizer=sgd"], ["optimizer=sam", "optimizer.start=0.5", "optimizer.interval=2", "m=4"]]
)
def test_run_without_epochs_measures_the_weights_of_the_file(command, tmp_path, given, rule):
    code, out, err = command("train.py", *NOTHING, *FILE, *rule)
    assert (code, err) == (0, "")
    directory = only_run(tmp_path)
    kept = weights(directory)
    assert all(torch.equal(tensor, kept[f"network.{name}"]) for name, tensor in given.items())
    (row,) = metrics(directory)
    assert {name for name, cell in row.items() if cell} == MEASURED
    assert (row["epoch"], row["step"], float(row["passes"]), float(row["seconds"])) == ("0", "0", 0, 0)
    published = timm.get_pretrained_cfg("test_efficientnet")
    named = predictions(directory, split="test", statistics=(published.mean, published.std))
    assert len(set(named)) > 1, "all images got the same class"
    wrong = 100 * sum(name != number % 4 for number, name in enumerate(named)) / 16
    assert float(row["test_error_pct"]) == wrong
    result = read_result(directory)
    assert (result["status"], result["message"], result["epochs"]) == ("complete", "", 0)
    assert (result["steps"], result["forward_backward_passes"]) == (0, 0)
    assert result["test_error_pct"] == wrong
    assert result["best"] == {"epoch": 0, "test_error_pct": wrong}
    for key in ("train_error_pct", "train_loss", "train_clean_error_pct", "images_per_second"):
        assert result[key] is None
    assert f"epoch 0 of 0, error test {wrong:.2f} %\n" in out
    assert f"complete: test error {wrong:.2f} %, " in out
    assert "nan" not in out and "train" not in out
    assert command("evaluate.py", f"run={directory}")[0] == 0
    record = json.loads((directory / "evaluation-test.json").read_text())
    assert record["after"] == "0 epochs"
    for key, column in (("loss", "test_loss"), ("error_pct", "test_error_pct")):
        assert record[key] == float(row[column]) == result[column]


def test_run_without_epochs_is_skipped_once_it_has_ended_and_goes_on_if_it_has_not(command, tmp_path, given):
    assert command("train.py", *NOTHING, *FILE)[0] == 0
    directory = only_run(tmp_path)
    before, first = metrics(directory), read_result(directory)
    code, out, _ = command("train.py", *NOTHING, *FILE)
    assert code == 0
    error = f"complete: test error {first['test_error_pct']:.2f} %, {first['seconds']:.0f} s; "
    assert out.startswith(f"{error}ended before, skipped (force=true starts it from the beginning)\n")
    # As if it was killed between the checkpoint and the result.
    (directory / "result.json").unlink()
    code, out, _ = command("train.py", *NOTHING, *FILE)
    assert code == 0
    assert "goes on after epoch 0 of 0\n" in out
    assert metrics(directory) == before
    assert read_result(directory)["test_error_pct"] == first["test_error_pct"]


def test_run_without_epochs_or_trained_weights_measures_the_initial_ones(command, tmp_path):
    arguments = [*NOTHING, "model.width=4", "dataset.label_noise=0.5", "dataset.num_train=160"]
    code, out, err = command("train.py", *arguments, "dataset.validation=random")
    assert (code, err) == (0, "")
    directory = only_run(tmp_path)
    config = read_config(directory)
    torch.manual_seed(config.seed)
    drawn = make_network(config.model, load_dataset(config.dataset, config.seed), torch.device("cpu"))
    kept = weights(directory)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in drawn.state_dict().items())
    assert "train error" not in out
    assert f"complete: validation error {read_result(directory)['test_error_pct']:.2f} %, " in out
    assert (directory / "labels.npz").exists()


@pytest.mark.slow
def test_comparison_shows_a_run_without_epochs(command, tmp_path, capsys):
    assert command("train.py", "-m", *NOTHING, "model.width=4", "optimizer=sgd,sam", "seed=0,1")[0] == 0
    assert compare.main([str(tmp_path / "outputs")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "epochs 0" in out
    header, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")
    ]
    assert len(rows) == 2
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        assert (cells["Train error (%)"], cells["n"]) == ("-", "2")
        assert cells["Test error (%)"] != "-"
    assert (tmp_path / "outputs" / "comparison.png").exists()


def test_console_on_a_terminal_shows_the_error_of_a_run_without_epochs(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    log = ConsoleLog("run", epochs=0, steps_per_epoch=10)
    log.restart([])
    log.log({"epoch": 0, "test_error_pct": 6.789})
    log.close()
    assert terminal.getvalue().rstrip("\n").split("\r")[-1].endswith("epoch 0: test 6.79 %")


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_without_epochs_measure_what_one_does(command, tmp_path, given, parallel):
    arguments = [*NOTHING, *FILE, "optimizer=sgd", "m=4"]
    two = ["runtime=ddp", "runtime.processes=2", f"runtime.parallel={parallel}", "outputs=two"]
    ended = run([TRAIN, *arguments, *two], tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert command("train.py", *arguments, "outputs=one")[0] == 0
    one, other = only_run(tmp_path / "one"), only_run(tmp_path / "two")
    assert read_result(other)["processes"] == 2
    (row,), (other_row,) = metrics(one), metrics(other)
    # The sums are float64, but in another order and over batches of another size.
    assert float(other_row.pop("test_loss")) == pytest.approx(float(row.pop("test_loss")), rel=1e-6)
    assert other_row == row
    kept = weights(other)
    assert all(torch.equal(tensor, kept[f"network.{name}"]) for name, tensor in given.items())
