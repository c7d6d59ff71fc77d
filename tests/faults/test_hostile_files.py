"""Files from elsewhere that mean harm, given to train.py and evaluate.py: nothing in them is run.

Each is refused with one message and exit code 2, in bounded time and memory, and nothing is written or
deleted outside of the run directory. What makes tables and reports of runs is held to it, too, in
test_hostile_runs.py.
"""

import os
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from sam.record.directory import clear, locked, read_config
from sam.record.identity import path_of
from sam.run import worker
from sam.system.errors import ConfigError
from sam.training.checkpoint import FORMAT
from tests.conftest import changed
from tests.faults.hostile import ALIAS_BOMB, Code, add_digest, write_zip
from tests.tiny import TINY

CHANGES = {
    "dataset.name": "synthetic",
    "dataset.reader": "synthetic",
    "dataset.num_train": 32,
    "dataset.num_test": 16,
    "dataset.image_size": 12,
    "dataset.num_classes": 4,
    "dataset.label_noise": 0.25,
    "model.width": 4,
    "batch_size": 16,
    "epochs": 1,
    "runtime.threads": 1,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The directory of a run that was stopped as its result was to be written: there is no checksum of it."""
    config = changed({**CHANGES, "outputs": str(tmp_path_factory.mktemp("outputs"))})
    worker.run(config, "again")
    (path_of(config) / "result.json").unlink()
    return path_of(config)


@pytest.fixture
def run(original, tmp_path):
    """A copy of it, where train.py looks for it; beside it lies a file that nobody may touch."""
    config = changed({**CHANGES, "outputs": str(tmp_path / "outputs")})
    shutil.copytree(original, path_of(config))
    (tmp_path / "treasure").write_text("gold")
    return path_of(config)


@pytest.fixture
def refused(command, tmp_path):
    """Run a command, make sure that it is refused and has done nothing, and return its message."""

    def refused(*line):
        code, out, err = command(*line)
        assert (code, out) == (2, "")
        assert err.count("error: ") == 1, err
        assert "Traceback" not in err
        assert not (tmp_path / "ran").exists(), "code in a file was run"
        return err

    return refused


AGAIN = [*TINY, "dataset.label_noise=0.25"]


def change_config(run, old, new):
    text = (run / "config.yaml").read_text()
    assert old in text, text
    (run / "config.yaml").write_text(text.replace(old, new))


def test_the_run_is_sound_before_anything_is_done_to_it(command, run):
    code, _, err = command("evaluate.py", f"run={run}")
    assert (code, err) == (0, "")


def test_checkpoint_with_code_is_refused(refused, run, tmp_path):
    torch.save({"format": FORMAT, "model": Code(tmp_path / "ran")}, run / "checkpoint.pt")
    add_digest(run / "checkpoint.pt")
    (run / "checkpoint.previous.pt").unlink(missing_ok=True)
    for line in (["evaluate.py", f"run={run}"], ["train.py", *AGAIN]):
        assert "checkpoint.pt is damaged" in refused(*line)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_weights_with_code_are_refused(refused, tmp_path, name):
    torch.save({"conv.weight": Code(tmp_path / "ran")}, tmp_path / name)
    plain = [item for item in TINY if not item.startswith("model.")]
    model = ["model=timm", "model.timm_name=test_efficientnet", f"model.weights={name}"]
    assert f"weights={name} cannot be read" in refused("train.py", *plain, *model)


@pytest.mark.parametrize("name", ["labels.pt", "labels.npz", "labels.npy"])
def test_label_file_with_code_is_refused(refused, tmp_path, name):
    objects = np.array([Code(tmp_path / "ran")] * 32, dtype=object)
    if name == "labels.pt":
        torch.save({"arr_0": Code(tmp_path / "ran")}, tmp_path / name)
    else:
        (np.savez if name == "labels.npz" else np.save)(tmp_path / name, objects)
    key = [] if name == "labels.npy" else ["dataset.label_name=arr_0"]
    assert name in refused("train.py", *TINY, f"dataset.label_file={name}", *key)


def test_recorded_labels_with_code_are_refused(refused, run, tmp_path):
    objects = np.array([Code(tmp_path / "ran")] * 32, dtype=object)
    np.savez(run / "labels.npz", clean=objects, trained=objects)
    for line in (["evaluate.py", f"run={run}"], ["train.py", *AGAIN]):
        assert "labels.npz" in refused(*line)


def test_labels_that_unpack_to_more_than_memory_are_refused(refused, run):
    write_zip(run / "labels.npz", {"clean.npy": 10**12, "trained.npy": 10**12})
    assert "it claims to hold 2000000000000 bytes" in refused("evaluate.py", f"run={run}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("root: data", "root: !!python/object/apply:os.mkdir [ran]", "could not determine a constructor"),
        ("root: data", "root: ${oc.env:TREASURE}", "it has a reference, ${oc.env:TREASURE}"),
        ("root: data", "root: ${oc.decode:'${oc.env:TREASURE}'}", "it has a reference"),
        ("root: data", "root: ${by_dataset:{synthetic:gold}}", "it has a reference"),
        ("root: data", "root: &x data\n  label_file: *x", "it has an alias"),
        ("root: data", f"root: {'[' * 1500}", "config.yaml is damaged"),
        ("root: data", f"root: {'x' * 70000}", "it is longer than 65536 bytes"),
        ("name: synthetic", "name: ../../x", "dataset.name=../../x: allowed is a name"),
        ("name: synthetic", "name: /x", "dataset.name=/x: allowed is a name"),
        ("name: resnet8", "name: ../x", "model.name=../x: allowed is a name"),
        ("name: none\n  flip", "name: '..'\n  flip", "augmentation.name=..: allowed is a name"),
        ("architecture: cifar_resnet", "architecture: ../x", "model.architecture=../x: allowed is one of"),
    ],
)
def test_config_of_a_run_is_values_alone(run, monkeypatch, old, new, message):
    monkeypatch.setenv("TREASURE", "gold")
    change_config(run, old, new)
    with pytest.raises(ConfigError, match=re.escape(message)) as told:
        read_config(run)
    assert "gold" not in str(told.value).replace("synthetic:gold", "")


def test_config_with_billions_of_aliases_is_refused_at_once(refused, run):
    (run / "config.yaml").write_text(ALIAS_BOMB)
    assert "it has an alias" in refused("evaluate.py", f"run={run}")


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "local-dir:treasure"])
def test_name_of_a_network_is_no_place(refused, run, name):
    change_config(run, "architecture: cifar_resnet", "architecture: timm")
    change_config(run, "timm_name: null", f"timm_name: {name}")
    assert f"timm_name={name} is unknown to timm" in refused("evaluate.py", f"run={run}")


def test_evaluation_is_written_into_the_directory_that_was_named(command, run, tmp_path):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub("^outputs: .*$", "outputs: elsewhere", text, flags=re.MULTILINE))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert command("evaluate.py", f"run={run}")[0] == 0
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    # Hydra keeps a log of every command in the current folder.
    assert {path for path in after - before if tmp_path / "outputs" not in path.parents} == set()
    assert run / "evaluation-test.json" in after
    assert not (tmp_path / "elsewhere").exists()


def test_nothing_is_fetched_into_a_folder_that_only_a_run_names(refused, run, tmp_path):
    for old, new in (
        ("name: synthetic\n  reader: synthetic", "name: cifar10\n  reader: cifar10"),
        ("root: data", f"root: {tmp_path / 'elsewhere'}"),
        ("num_classes: 4", "num_classes: null"),
        ("image_size: 12", "image_size: null"),
    ):
        change_config(run, old, new)
    told = refused("evaluate.py", f"run={run}")
    assert "or name the folder above" in told and told.endswith("for evaluate.py, use root=FOLDER\n")
    assert not (tmp_path / "elsewhere").exists()


LINKS = [
    "checkpoint.pt",
    "evaluation-test.json.unfinished",
    "config.yaml.unfinished",
    "analysis/x.json",
    "analysis",
    "weights/epoch0.pt",
]


@pytest.mark.parametrize("name", LINKS)
def test_nothing_is_written_through_a_link(refused, run, tmp_path, name):
    link = run / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "treasure")
    with pytest.raises(ConfigError, match=f"{name} is a link"), locked(run):
        pass
    assert f"{name} is a link" in refused("evaluate.py", f"run={run}")
    assert (tmp_path / "treasure").read_text() == "gold"


def test_event_files_elsewhere_are_left_alone(refused, run, tmp_path):
    shutil.rmtree(run / "tensorboard")
    (run / "tensorboard").symlink_to(tmp_path)
    (tmp_path / "events.out.tfevents.1").write_text("gold")
    for force in ("false", "true"):
        assert "tensorboard is a link" in refused("train.py", *AGAIN, f"force={force}")
    assert (tmp_path / "events.out.tfevents.1").read_text() == "gold"


def test_clearing_a_run_directory_deletes_links_and_not_what_they_lead_to(run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("gold")
    shutil.rmtree(run / "tensorboard")
    (run / "tensorboard").symlink_to(outside)
    (run / "analysis").mkdir()
    (run / "analysis" / "deep").symlink_to(outside)
    (run / "labels.npz").unlink()
    (run / "labels.npz").symlink_to(outside / "file")
    clear(run)
    assert (outside / "file").read_text() == "gold"
    assert [path.name for path in run.iterdir()] in ([], [".lock"])


@pytest.mark.parametrize("name", ["config.yaml", "result.json", "labels.npz", "checkpoint.pt"])
def test_a_pipe_in_a_run_directory_makes_nobody_wait(command, run, name):
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    code, _, err = command("evaluate.py", f"run={run}")
    assert (code, "Traceback" in err) == ((0 if name == "result.json" else 2), False)


def test_deeply_nested_result_is_no_result(command, run):
    (run / "result.json").write_text("[" * 100_000)
    assert command("evaluate.py", f"run={run}")[0] == 0
    assert command("train.py", *AGAIN)[0] == 0


POSTSCRIPT = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ran) (w) file closefile\nshowpage\n"


@pytest.mark.parametrize("what", ["a program in PostScript", "a pipe", "a bomb"])
def test_image_that_is_none_is_refused(refused, tmp_path, what):
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / split / "cat" / "good.png")
    path = tmp_path / "train" / "cat" / "bad.jpg"
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a program in PostScript":
        path.write_text(POSTSCRIPT)
    else:
        Image.new("1", (20000, 20000)).save(path, format="PNG")
    told = refused("train.py", "dataset=image_folder", f"dataset.root={tmp_path}")
    assert "bad.jpg is not a readable image" in told
