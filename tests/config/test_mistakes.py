"""What a user can get wrong, and the one message that each mistake gets: exit code 2, no traceback."""

import pathlib
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from sam.config.schema import TrainConfig
from sam.record.directory import locked
from sam.record.identity import path_of
from tests.tiny import TINY

ROOT = pathlib.Path(__file__).resolve().parents[2]

# command line -> what the message must hold, in this order
BAD_COMMANDS = {
    # keys
    "optimizer.rhoo=1": "optimizer.rhoo: there is no such key; did you mean optimizer.rho?",
    "rho=0.1": "rho: there is no such key; did you mean optimizer.rho or analysis.rho?",
    "epoch=3": "epoch: there is no such key; did you mean epochs?",
    "learning_rate=1": "learning_rate: there is no such key; allowed is one of epochs, batch_size, m",
    "optimizer.wd=1": "optimizer.wd: there is no such key; allowed is one of optimizer.name, optimizer.base",
    "datset=cifar10": "datset: there is no such key; did you mean dataset?",
    "+foo=1": "foo: there is no such key; allowed is one of epochs",
    "+optimizer.beta=1": "optimizer.beta: there is no such key; allowed is one of optimizer.name",
    "optimizer.lr.x=1": "optimizer.lr.x: there is no such key",
    "hydra.foo=1": "Hydra has no such key; see train.py --hydra-help",
    "~epochs.x": "epochs.x",
    "optimizer={rhoo:1}": "optimizer.rhoo: there is no such key; did you mean optimizer.rho?",
    "optimizer@foo=sam": "Could not override 'optimizer@foo'",
    "+optimizer.rho=1": "Could not append to config. An item is already at 'optimizer.rho'",
    # choices
    "model=wrn2810": "model=wrn2810: there is no such choice; allowed is one of efficientnet_b7",
    "optimizer=adam": "optimizer=adam: there is no such choice; allowed is one of sam, sgd",
    "experiment=null": "experiment=null: a group needs one choice; leave it out",
    "model=5": "model=5: a group needs one choice; leave it out",
    "~experiment=5": "~experiment=5: a group needs one choice; leave it out",
    "-m experiment=null,finetune": "experiment=null: a group needs one choice; leave it out",
    "experiment=nope": "experiment=nope: there is no such choice; allowed is one of finetune",
    "-m optimizer=sgd,adam": "optimizer=adam: there is no such choice; allowed is one of sam, sgd",
    "runtime.precision=fp8": "runtime.precision=fp8: allowed is one of fp32, tf32, bf16, fp16",
    "augmentation.padding=wrap": "augmentation.padding=wrap: allowed is one of reflect, zero",
    "dataset.reader=mnist": "dataset.reader=mnist: allowed is one of fashion_mnist_mini, fashion_mnist",
    # types
    "optimizer.rho=abc": "optimizer.rho=abc: allowed is a number",
    "epochs=1.5": "epochs=1.5: allowed is a whole number",
    "seed=null": "seed=null: allowed is a whole number",
    "m=x": "m=x: allowed is a whole number or null",
    "optimizer.nesterov=maybe": "optimizer.nesterov=maybe: allowed is true or false",
    "optimizer.rho=0.1,0.2": "optimizer.rho=0.1,0.2: several values need a sweep; add -m",
    "optimizer.rho=range(1,3)": "optimizer.rho=range(1,3): several values need a sweep; add -m\n",
    "optimizer.rho=[": "optimizer.rho=[: cannot be read",
    "=3": "=3: write KEY=VALUE",
    "optimizer={rho:abc}": "optimizer.rho=abc: allowed is a number",
    "hydra.run.dir=[1]": "Error merging override hydra.run.dir=[1]: Cannot convert",
    # interpolations
    "dataset.root='${'": "dataset.root='${': no viable alternative at input '${'; for the characters ${",
    "dataset.root=${nope}": "Interpolation key 'nope' not found; for the characters ${ themselves, write",
    "optimizer.rho=${outputs}": "optimizer.rho=outputs: allowed is a number",
    # ranges
    "optimizer.rho=-1": "optimizer.rho=-1.0: allowed is a number >= 0",
    "optimizer.lr=0": "optimizer.lr=0.0: allowed is a number > 0",
    "optimizer.lr=nan": "optimizer.lr=nan: allowed is a finite number",
    "optimizer.momentum=1": "optimizer.momentum=1.0: allowed is a number >= 0 and < 1",
    "epochs=-1": "epochs=-1: allowed is a number >= 0",
    "seed=-1": "seed=-1: allowed is a number >= 0 and <= 2147483647",
    "label_smoothing=1": "label_smoothing=1.0: allowed is a number >= 0 and < 1",
    "dataset.label_noise=1.5": "dataset.label_noise=1.5: allowed is a number >= 0 and < 1",
    "dataset.name=../../x": "dataset.name=../../x: allowed is a name of letters, digits",
    # clashes
    "m=7": "m=7 does not divide batch_size=128; choose a divisor or m=null",
    "model.depth=21": "model.depth=21: a cifar_resnet has depth 6n+2, for example 20",
    "optimizer.momentum=0": "optimizer.nesterov=true needs optimizer.momentum > 0; set",
    "runtime.precision=tf32 runtime.device=cpu": "runtime.precision=tf32 needs a GPU, but",
    "dataset.num_train=64": "dataset.num_train=64 fills no batch of batch_size=128; lower",
    "dataset.image_size=64": "dataset=fashion_mnist_mini: dataset.image_size=64: the images have 28 x 28",
    "dataset.num_train=6000": "dataset=fashion_mnist_mini: 6000 images were asked for, but there are 5000",
    "batch_size=6000": "batch_size=6000, but there are only 5000 training images; lower batch_size",
    "augmentation=basic augmentation.crop_padding=28": "augmentation.crop_padding=28 must be below",
    "optimizer.p=1": "optimizer.p=1.0: allowed is a number > 1",
    "augmentation=inception": "augmentation.inception_crop=true needs images of full size",
    "experiment=finetune model=resnet8": "model.freeze_statistics does not apply to cifar_resnet; leave it",
    "model=timm": "model.timm_name=null: name a model of timm, such as model.timm_name=resnet50",
    "model=timm model.timm_name=resnet5": "timm_name=resnet5 is unknown to timm; similar names are resnet50",
    "model=timm model.timm_name=vit_tiny_patch16_224": "takes images of 224 pixels a side, got 28 x 28",
    "model=efficientnet_lite0 model.weights=no.pth": "weights=no.pth: no such file; name a",
    "dataset.label_file=no.npz dataset.label_name=x": "dataset=fashion_mnist_mini: there is no file no.npz",
    "dataset.relabel_from=nowhere": "dataset.relabel_from=nowhere is not a run directory: nowhere/",
    "dataset=stanford_cars": "dataset=stanford_cars: ",
    "dataset=imagenet": "dataset=imagenet: an image folder needs",
    # machine and files
    "runtime.device=tpu9": "runtime.device=tpu9: not usable here",
    "dataset=cifar10 dataset.download=false": "data_batch_1 is missing (dataset.download=false). Download it",
    "dataset=cifar100 dataset.download=false": "CIFAR-100 is not there",
    "dataset=fashion_mnist dataset.download=false": "Fashion-MNIST is not there",
    "dataset=image_folder dataset.root=/nowhere": "an image folder needs /nowhere/train with one folder",
}


@pytest.mark.parametrize("line", BAD_COMMANDS)
def test_train_refuses_with_one_clear_message(line, command, tmp_path):
    code, out, err = command("train.py", *line.split())
    assert code == 2
    assert err.startswith("error: ")
    assert BAD_COMMANDS[line] in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("config.yaml")), "nothing was begun"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_train_without_a_gpu_refuses_cuda(command):
    code, _, err = command("train.py", "runtime.device=cuda")
    assert (code, "runtime.device=cuda: not usable here" in err) == (2, True)
    code, _, err = command("train.py", "runtime.precision=tf32")
    assert (code, "runtime.precision=tf32 needs a GPU, and the device is cpu" in err) == (2, True)


def test_train_shows_all_faults_of_a_config_together(command):
    code, _, err = command("train.py", "optimizer.rho=-1", "optimizer.lr=0", "m=7")
    assert code == 2
    assert err.splitlines() == [
        "error: optimizer.lr=0.0: allowed is a number > 0",
        "optimizer.rho=-1.0: allowed is a number >= 0",
        "m=7 does not divide batch_size=128; choose a divisor or m=null",
    ]
    _, _, err = command("train.py", "epochs=abc", "optimizer.rhoo=2", "m=x")
    assert err.splitlines() == [
        "error: epochs=abc: allowed is a whole number",
        "optimizer.rhoo: there is no such key; did you mean optimizer.rho?",
        "m=x: allowed is a whole number or null",
    ]


def test_train_refuses_outputs_that_cannot_be_written(command, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    code, _, err = command("train.py", *TINY, "outputs=file/x")
    assert code == 2
    assert "cannot be written" in err
    assert "choose another folder with outputs=..." in err


def test_train_refuses_a_corrupt_dataset_file(command, tmp_path):
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(b"damaged")
    code, _, err = command("train.py", "dataset=cifar10")
    assert code == 2
    assert f"{folder / 'data_batch_1'} is corrupt" in err
    assert "replace it with an intact copy" in err


def test_train_refuses_an_unreadable_image(command, tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / split / "cat" / "good.png")
    (tmp_path / "train" / "cat" / "bad.png").write_bytes(b"no image")
    code, _, err = command("train.py", "dataset=image_folder", f"dataset.root={tmp_path}")
    assert code == 2
    assert "bad.png is not a readable image" in err
    assert "repair or delete it" in err


def test_train_refuses_a_run_that_another_process_works_on(command, tmp_path):
    config = TrainConfig()
    config.optimizer.rho = 0.2  # what the default dataset brings
    with locked(tmp_path / path_of(config)):
        code, _, err = command("train.py")
    assert code == 2
    assert "another process is working in" in err
    assert "wait for it, or change seed or outputs" in err


def test_train_refuses_when_no_checkpoint_can_be_read(command, tmp_path):
    assert command("train.py", *TINY)[0] == 0
    (result,) = tmp_path.rglob("result.json")
    result.unlink()
    result.with_name("checkpoint.pt").write_bytes(b"damaged")
    code, _, err = command("train.py", *TINY)
    assert code == 2
    assert "checkpoint.pt is damaged" in err
    assert "start again with force=true" in err
    assert command("train.py", *TINY, "force=true")[0] == 0


BAD_EVALUATIONS = {
    "": "run is empty; name a run directory",
    "run=nowhere": "run=nowhere is not a run directory: nowhere/config.yaml is missing",
    "run=x split=val": "split=val: allowed is one of test, train",
    "ruun=x": "ruun: there is no such key; did you mean run?",
}


@pytest.mark.parametrize("line", BAD_EVALUATIONS)
def test_evaluate_refuses_with_one_clear_message(line, command):
    code, _, err = command("evaluate.py", *line.split())
    assert code == 2
    assert BAD_EVALUATIONS[line] in err
    assert "Traceback" not in err


def test_evaluate_refuses_damaged_run_directories(command, tmp_path):
    assert command("train.py", *TINY)[0] == 0
    (config,) = tmp_path.rglob("config.yaml")
    run = f"run={config.parent}"
    text = config.read_text()
    config.write_text(text.replace("depth: 8", "depth: 14"))
    code, _, err = command("evaluate.py", run)
    assert code == 2
    assert f"error: {config} is damaged: its checksum is not the one in result.json; copy" in err
    config.with_name("result.json").unlink()  # which then no longer tells
    for damaged, message in [
        ("epochs: [", "config.yaml is damaged"),
        ("epochs: many", "config.yaml is damaged"),
        (text.replace("depth: 8", "depth: 14"), "the checkpoint does not fit the model"),
    ]:
        config.write_text(damaged)
        code, _, err = command("evaluate.py", run)
        assert (code, message in err) == (2, True), err
    config.write_text(text)
    config.with_name("checkpoint.pt").unlink()
    code, _, err = command("evaluate.py", run)
    assert (code, "has no checkpoint yet; train it first" in err) == (2, True)


@pytest.mark.parametrize("arguments", [["optimizer.rhoo=1"], ["epochs=-1"], ["-m", "epochs=-2,-1"]])
def test_mistake_ends_the_process_with_code_2_and_no_traceback(arguments, tmp_path):
    ended = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "error: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ("2 runs: 0 complete, 0 diverged, 2 failed\n" if arguments[0] == "-m" else "")


UNDER_TORCHRUN = {
    "-m seed=0,1": "error: -m under torchrun would run the whole sweep in each of 2 processes; start it",
    "runtime.processes=3": "error: runtime.processes=3, but torchrun has started 2; leave it null under",
}


@pytest.mark.parametrize("line", UNDER_TORCHRUN)
def test_train_refuses_under_torchrun_what_only_it_can_start_and_says_so_once(line, command, monkeypatch):
    monkeypatch.setattr("sam.run.launch.SECONDS_BEFORE_FAILING", 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        code, out, err = command("train.py", *line.split(), *TINY)
        assert (code, out) == (2, "")
        assert err.startswith(UNDER_TORCHRUN[line] if rank == "0" else "")
        assert err.count("\n") == (rank == "0")


def test_sweep_goes_on_after_a_bad_run_and_tells_of_every_one(command, tmp_path):
    code, out, err = command("train.py", "-m", *TINY, "optimizer.rho=-1,0.1,-2")
    assert code == 2
    assert "error: optimizer.rho=-1.0: allowed is a number >= 0" in err
    assert "error: optimizer.rho=-2.0: allowed is a number >= 0" in err
    assert len(list(tmp_path.rglob("result.json"))) == 1
    shutil.rmtree(tmp_path / "outputs")
