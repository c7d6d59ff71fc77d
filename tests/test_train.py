"""train.py as a user meets it: runs, skips, continues, sweeps, stops."""

import csv
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types

import pytest
import torch
from PIL import Image

from sam.build.network import make_network
from sam.record.directory import read_config, read_result
from sam.run.result import make_result
from tests.quick_process import ROOT, TRAIN, QuickProcess, run
from tests.tiny import TINY


def only_run(folder):
    (config,) = folder.rglob("config.yaml")
    return config.parent


def metrics(directory):
    with open(directory / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def without_times(rows):
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_run_directory_holds_what_the_contract_says(command, tmp_path, optimizer):
    code, out, _ = command("train.py", *TINY, f"optimizer={optimizer}", "epochs=2", "seed=3")
    assert code == 0
    directory = only_run(tmp_path)
    rule = {"sgd": "sgd", "sam": "sam-rho0.05"}[optimizer]
    assert directory.relative_to(tmp_path).parts[:-1] == ("outputs", "synthetic", "resnet8", "none", rule)
    result = read_result(directory)
    assert directory.name == f"seed3-{result['identity']}"
    assert {path.name for path in directory.iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "tensorboard",
        "checkpoint.pt",
        "result.json",
        ".lock",
    }
    rows = metrics(directory)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["test_error_pct"]) == result["test_error_pct"]
    for column in ("perturbed_loss", "perturbed_error_pct", "loss_rise", "grad_norm", "cosine"):
        assert (rows[-1][column] != "") == (optimizer == "sam")
    assert result["status"] == "complete"
    assert result["steps"] == 4
    assert result["forward_backward_passes"] == 4 * {"sgd": 1, "sam": 2}[optimizer]
    assert result["best"]["test_error_pct"] == min(float(row["test_error_pct"]) for row in rows)
    assert result["peak_memory_mib"] > 1
    assert f"complete: test error {result['test_error_pct']:.2f} %" in out


def test_run_says_the_advice_on_its_precision_once(command, monkeypatch):
    monkeypatch.setattr("sam.run.worker.advice_on_precision", lambda *of: f"advice on {' '.join(of)}")
    _, out, _ = command("train.py", *TINY, "runtime.device=cpu")
    assert out.count("advice on fp32 cpu\n") == 1


def test_run_that_has_ended_is_skipped_without_torch(command, tmp_path):
    assert command("train.py", *TINY)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in only_run(tmp_path).rglob("*")}
    arguments = [sys.executable, "-X", "importtime", str(TRAIN), *TINY]
    again = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0
    assert "skipped (force=true starts it from the beginning)" in again.stdout
    assert "torch" not in again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in only_run(tmp_path).rglob("*")}


def test_force_starts_again_and_gives_the_same_numbers(command, tmp_path):
    command("train.py", *TINY)
    directory = only_run(tmp_path)
    first, ended = metrics(directory), read_result(directory)["ended_at"]
    (directory / "notes.txt").write_text("mine")
    time.sleep(1.1)
    assert command("train.py", *TINY, "force=true")[0] == 0
    assert read_result(directory)["ended_at"] > ended
    assert without_times(metrics(directory)) == without_times(first)
    assert (directory / "notes.txt").read_text() == "mine", "only its own files are cleared"


def test_force_keeps_an_ended_run_when_the_new_one_cannot_begin(command, tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(8):
                image = Image.new("RGB", (9, 9), (30 * number, 0, 0))
                image.save(tmp_path / split / name / f"{number}.png")
    arguments = ["dataset=image_folder", f"dataset.root={tmp_path}", "dataset.image_size=12", "epochs=1"]
    arguments += ["batch_size=16", "model.width=4"]
    assert command("train.py", *arguments)[0] == 0
    ended = read_result(only_run(tmp_path / "outputs"))
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"damaged")
    assert command("train.py", *arguments, "force=true")[0] == 2
    assert read_result(only_run(tmp_path / "outputs")) == ended


def test_stopped_forced_run_is_continued_by_the_command_it_names(command, tmp_path, monkeypatch):
    monkeypatch.setattr("sam.run.worker.StopRequest.is_set", lambda self: self.asked())
    steps = iter([False] * 3 + [True] * 99)
    monkeypatch.setattr("sam.run.worker.StopRequest.asked", lambda self: next(steps), raising=False)
    arguments = [*TINY, "epochs=3", "outputs=a b"]
    _, _, err = command("train.py", *arguments, "force=true")
    assert "stopped and saved; continue with: " in err
    told = shlex.split(err.split("continue with: ")[1])
    assert told[2:] == arguments
    assert read_config(only_run(tmp_path)).force is False


def test_stop_in_the_last_epoch_of_a_run_ends_the_sweep_after_it(command, tmp_path, monkeypatch):
    monkeypatch.setattr("sam.run.worker.make_result", lambda *a, **k: stop_and_make(*a, **k))

    def stop_and_make(*arguments, **keywords):
        os.kill(os.getpid(), signal.SIGTERM)
        return make_result(*arguments, **keywords)

    code, _, _ = command("train.py", "-m", *TINY, "seed=0,1")
    assert code == 143
    assert len(list(tmp_path.rglob("result.json"))) == 1


def test_sweep_tells_of_a_crash_at_once_and_ends_with_1(command, tmp_path, monkeypatch):
    model = make_network

    def crash_at_width_5(config, *arguments):
        if config.width == 5:
            raise RuntimeError("a fault of the program")
        return model(config, *arguments)

    monkeypatch.setattr("sam.build.network.make_network", crash_at_width_5)
    code, _, err = command("train.py", "-m", *TINY, "optimizer.lr=-1,0.1", "model.width=5,4")
    assert code == 1
    assert err.count("optimizer.lr=-1.0: allowed is a number > 0 (job ") == 2
    assert "RuntimeError: a fault of the program" in err
    assert "error: a fault of the program (job " in err
    assert len(list(tmp_path.rglob("result.json"))) == 1


def test_output_that_nobody_reads_does_not_stop_training(tmp_path):
    running = QuickProcess([TRAIN, *TINY, "epochs=9"], tmp_path)
    assert running.stdout.readline().startswith("synthetic/resnet8")
    running.stdout.close()
    running.communicate(timeout=120)
    assert read_result(only_run(tmp_path))["status"] == "complete"


def test_config_yaml_gives_the_same_run_again(command, tmp_path):
    overrides = ["optimizer.rho=0.3", "m=8", "optimizer.clip_norm=null"]
    command("train.py", *TINY, *overrides)
    directory = only_run(tmp_path)
    before = metrics(directory)
    head = (directory / "config.yaml").read_text().splitlines()
    assert head[0] == "# Made by: python train.py " + " ".join([*TINY, *overrides])
    again = shlex.split(head[1].removeprefix("# From this file alone: python "))
    code, out, err = command(*again, "force=true")
    assert code == 0, err
    assert only_run(tmp_path) == directory
    assert without_times(metrics(directory)) == without_times(before)
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


@pytest.mark.slow
def test_sweep_makes_one_run_of_sgd_and_one_per_rho_of_sam(command, tmp_path):
    sweep = ["-m", *TINY, "optimizer=sgd,sam", "optimizer.rho=0.1,0.2"]
    code, out, _ = command("train.py", *sweep)
    assert code == 0
    runs = sorted(path.parent.parent.name for path in tmp_path.rglob("result.json"))
    assert runs == ["sam-rho0.1", "sam-rho0.2", "sgd"]
    assert out.count("complete: ") == 3, "SGD does not read rho"
    assert "3 of 3 runs ended before, skipped" in command("train.py", *sweep)[1]
    leftovers = {path.name for path in tmp_path.iterdir()}
    assert leftovers == {"outputs"}


def test_seeds_share_an_identity_and_differ_in_numbers(command, tmp_path):
    command("train.py", "-m", *TINY, "seed=0,1")
    one, other = sorted(tmp_path.rglob("metrics.csv"))
    assert one.parent.name.split("-")[1] == other.parent.name.split("-")[1]
    assert without_times(metrics(one.parent)) != without_times(metrics(other.parent))


def test_run_that_diverges_ends_with_its_own_status(command, tmp_path):
    arguments = [*TINY, "optimizer=sgd", "optimizer.lr=1e30", "optimizer.clip_norm=null", "epochs=9"]
    code, out, _ = command("train.py", *arguments)
    assert code == 0
    result = read_result(only_run(tmp_path))
    assert result["status"] == "diverged"
    assert "loss is not finite after step" in result["message"]
    assert out.startswith("synthetic") and "diverged: loss is not finite" in out
    assert len(metrics(only_run(tmp_path))) < 9
    json.dumps(result, allow_nan=False)
    assert "skipped" in command("train.py", *arguments)[1]


def test_learning_rate_of_a_run_rises_in_the_warm_up_and_falls_along_a_cosine(command, tmp_path):
    command("train.py", *TINY, "epochs=4", "optimizer.warmup_epochs=1.5", "optimizer.lr=0.6")
    # Two updates an epoch: 0.2, 0.4, 0.6, and a cosine over the other five. A row has the last update's.
    rates = [float(row["lr"]) for row in metrics(only_run(tmp_path))]
    assert rates == pytest.approx([0.4, 0.6, *(0.3 + 0.3 * math.cos(math.pi * k / 5) for k in (2, 4))])


def test_run_with_a_logger_sends_its_rows_and_has_the_directory_of_one_without(
    command, tmp_path, monkeypatch
):
    rows = []
    names = {"init": lambda **_: None, "log": lambda row, step: rows.append((step, row)), "finish": list}
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(**names))
    assert command("train.py", *TINY, "logger=wandb")[0] == 0
    ((step, row),) = rows
    (written,) = metrics(only_run(tmp_path))
    assert (step, row["test/error_pct"]) == (1, float(written["test_error_pct"]))
    assert "skipped" in command("train.py", *TINY)[1]


def test_run_with_a_logger_that_is_missing_ends_before_it_trains(command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    code, _, err = command("train.py", *TINY, "logger=trackio")
    assert code == 2
    assert err.startswith("error: logger=trackio: the package trackio is not installed")
    assert not list(tmp_path.rglob("config.yaml"))


def test_run_that_learns_nothing_warns_after_the_third_epoch(command, monkeypatch):
    monkeypatch.setattr("sam.logs.trouble.TOLERANCE", 1.0)  # any error from 50 % on counts as chance
    code, _, err = command("train.py", *TINY, "epochs=3", "optimizer.rho=100")
    assert code == 0
    assert "after epoch 3" in err and "a constant prediction has 75.00 %" in err
    assert err.endswith("; try optimizer.rho below 100 or optimizer.lr below 0.1\n")


@pytest.mark.slow
@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_says_how_to_go_on_and_going_on_gives_the_same_bits(tmp_path, signal_number, code):
    arguments = [TRAIN, *TINY, "dataset.num_train=128", "epochs=20"]
    stopped = QuickProcess(arguments, tmp_path)
    assert "epoch 1 of 20" in stopped.stdout.readline()
    stopped.send_signal(signal_number)
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == code
    told = err.strip().removeprefix("stopped and saved; continue with: ")
    assert told == " ".join(["python train.py", *arguments[1:]])
    assert not list(tmp_path.rglob("result.json"))
    assert run(arguments, tmp_path).returncode == 0
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run(arguments, whole).returncode == 0
    mine, other = only_run(tmp_path / "outputs"), only_run(whole)
    assert without_times(metrics(mine)) == without_times(metrics(other))
    states = [torch.load(path / "checkpoint.pt", weights_only=True) for path in (mine, other)]
    for key, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][key])


def test_sigterm_ends_a_whole_sweep(tmp_path):
    sweep = QuickProcess([TRAIN, "-m", *TINY, "epochs=400", "seed=0,1"], tmp_path)
    sweep.stdout.readline()
    sweep.send_signal(signal.SIGTERM)
    sweep.communicate(timeout=60)
    assert sweep.returncode == 143
    assert len(list(tmp_path.rglob("config.yaml"))) == 1


def test_damaged_checkpoint_is_told_of_and_the_one_before_is_used(command, tmp_path):
    arguments = [*TINY, "epochs=3"]
    assert command("train.py", *arguments)[0] == 0
    directory = only_run(tmp_path)
    expected = metrics(directory)
    (directory / "result.json").unlink()
    newest = directory / "checkpoint.pt"
    shutil.copy(newest, directory / "checkpoint.previous.pt")
    newest.write_bytes(newest.read_bytes()[:-100])
    code, _, err = command("train.py", *arguments)
    assert code == 0
    assert "warning: " in err and "going back to checkpoint.previous.pt" in err
    assert without_times(metrics(directory)) == without_times(expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_half_precision_trains(command, tmp_path, precision, optimizer):
    arguments = [*TINY, f"runtime.precision={precision}", f"optimizer={optimizer}", "epochs=2"]
    assert command("train.py", *arguments)[0] == 0
    assert read_result(only_run(tmp_path))["precision"] == precision


SMALL = {
    "wide_resnet": ["model.depth=10", "model.width=1", "model.shortcut=conv", "model.batch_norm=false"],
    "wide_cifar_resnet": ["model.depth=8", "model.width=4"],
    "shake_shake": ["model.depth=8", "model.width=4"],
    "pyramidnet": ["model.depth=11", "model.width=4", "model.alpha=8", "model.shakedrop=true"],
}


@pytest.mark.parametrize(
    ("architecture", "optimizer"), [*((name, "sam") for name in SMALL), ("wide_resnet", "sgd")]
)
def test_every_architecture_trains_and_goes_on_with_the_same_bits(command, tmp_path, architecture, optimizer):
    arguments = [*(item for item in TINY if not item.startswith("model.")), f"optimizer={optimizer}"]
    arguments += [f"model.architecture={architecture}", *SMALL[architecture], "epochs=2", "m=8"]
    assert command("train.py", *arguments)[0] == 0
    directory = only_run(tmp_path)
    whole = torch.load(directory / "checkpoint.pt", weights_only=True)["model"]
    shutil.rmtree(tmp_path / "outputs")
    with pytest.MonkeyPatch.context() as patch:
        steps = iter([False] * 4 + [True] * 9)
        patch.setattr("sam.run.worker.StopRequest.is_set", lambda self: next(steps))
        assert command("train.py", *arguments)[0] == 128
    assert command("train.py", *arguments)[0] == 0
    resumed = torch.load(directory / "checkpoint.pt", weights_only=True)["model"]
    assert all(torch.equal(tensor, resumed[key]) for key, tensor in whole.items())


@pytest.mark.slow
def test_compiled_runs_are_close_to_eager_ones(tmp_path):
    sweep = ["-m", *TINY, "model=resnet8", "model.width=4", "optimizer=sgd,sam"]
    assert run([TRAIN, *sweep, "outputs=eager"], tmp_path).returncode == 0
    compiled = subprocess.run(
        [sys.executable, str(TRAIN), *sweep, "runtime.compile=true", "outputs=compiled"],
        cwd=tmp_path,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert compiled.returncode == 0, compiled.stderr
    for optimizer in ("sgd", "sam-rho0.05"):
        rows = [
            metrics(path)[-1]
            for outputs in ("eager", "compiled")
            for path in (tmp_path / outputs).glob(f"*/*/*/{optimizer}/*")
        ]
        # Fused float32 kernels round differently; two updates do not spread that far.
        assert float(rows[0]["train_loss"]) == pytest.approx(float(rows[1]["train_loss"]), rel=1e-3)


@pytest.mark.slow
def test_help_names_every_group_and_choice_without_torch(tmp_path):
    page = subprocess.run(
        [sys.executable, "-X", "importtime", str(TRAIN), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert page.returncode == 0
    for group in (ROOT / "configs").iterdir():
        if group.is_dir() and group.name != "hydra":
            choices = sorted(path.stem for path in group.glob("*.yaml"))
            assert f"{group.name}: {', '.join(choices)}" in page.stdout
    assert page.stdout.count("python train.py") >= 5
    assert "torch" not in page.stderr


def test_config_can_be_read_back(command, tmp_path):
    command("train.py", *TINY, "augmentation=cutout")
    config = read_config(only_run(tmp_path))
    assert config.augmentation.cutout_size == 16
    assert config.epochs == 1


def test_cuda_graph_on_a_cpu_is_a_mistake_and_result_says_that_none_was_used(command, tmp_path):
    code, _, err = command("train.py", *TINY, "runtime.device=cpu", "runtime.graph=true")
    assert (code, err) == (
        2,
        "error: runtime.graph=true is not possible with the device cpu; use runtime.graph=auto\n",
    )
    assert command("train.py", *TINY, "runtime.device=cpu", "runtime.graph=false")[0] == 0
    assert read_result(only_run(tmp_path / "outputs"))["graph"] is False
