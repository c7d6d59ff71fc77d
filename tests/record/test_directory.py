"""Tests of sam/record/directory.py.

Longer than 300 lines, because it lists a non-default value for every key of the config.
"""

import copy
import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sam.config.schema import TrainConfig, config_items
from sam.record.directory import clear, locked, read_config, read_result, write_config, write_result
from sam.record.identity import deciding_keys, identity, path_of
from sam.system.errors import ConfigError
from sam.system.files import write_text
from tests.conftest import changed

REPOSITORY = Path(__file__).resolve().parents[2]

# A non-default value for every key that decides the numbers of a SAM run; below, for every other key.
SCIENCE: dict[str, Any] = {
    "dataset.name": "other",
    "dataset.reader": "cifar10",
    "dataset.num_train": 1000,
    "dataset.subset_seed": "run",
    "dataset.num_test": 1000,
    "dataset.validation": "random",
    "dataset.repeats": 2,
    "dataset.label_noise": 0.4,
    "dataset.label_noise_kind": "asymmetric",
    "dataset.label_noise_over": "all_classes",
    "dataset.label_file": "labels.npy",
    "dataset.label_name": "worse_label",
    "dataset.relabel_from": "outputs/a/b/c/sgd/seed0-12345678",
    "dataset.image_size": 32,
    "dataset.num_classes": 3,
    "dataset.resize_size": 40,
    "dataset.interpolation": "bicubic",
    "dataset.in_memory": False,
    "dataset.extra": False,
    "dataset.verify": False,
    "model.name": "other",
    "model.architecture": "wide_resnet",
    "model.depth": 20,
    "model.width": 8,
    "model.shortcut": "conv",
    "model.batch_norm": False,
    "model.dropout": 0.3,
    "model.skip": False,
    "model.alpha": 100,
    "model.shakedrop": True,
    "model.init": "torch",
    "model.init_seed": 0,
    "model.timm_name": "resnet50",
    "model.weights": "hub",
    "model.freeze_statistics": True,
    "model.batch_norm_decay": 0.99,
    "model.input_size": 224,
    "augmentation.name": "other",
    "augmentation.flip": True,
    "augmentation.crop_padding": 4,
    "augmentation.padding": "zero",
    "augmentation.cutout_size": 16,
    "augmentation.cutout_scope": "batch",
    "augmentation.auto_augment": "svhn",
    "augmentation.inception_crop": True,
    "augmentation.mixup_alpha": 1.0,
    "optimizer.name": "sgd",
    "optimizer.rule": "msam",
    "optimizer.base": "adamw",
    "optimizer.lr": 0.05,
    "optimizer.warmup_epochs": 2.0,
    "optimizer.momentum": 0.8,
    "optimizer.nesterov": False,
    "optimizer.weight_decay": 1e-3,
    "optimizer.weight_decay_in": "loss",
    "optimizer.clip_norm": None,
    "optimizer.rho": 0.1,
    "optimizer.adaptive": True,
    "optimizer.adaptive_for": "kernels",
    "optimizer.p": float("inf"),
    "optimizer.direction": "random",
    "optimizer.ascent_steps": 3,
    "optimizer.ascent_step_size": 0.5,
    "optimizer.second_order": True,
    "optimizer.true_gradient": False,
    "optimizer.replay": False,
    "optimizer.sync_ascent": True,
    "optimizer.perturb": "norm",
    "optimizer.ascent_fraction": 0.25,
    "optimizer.interval": 5,
    "optimizer.reuse": 0.7,
    "optimizer.start": 0.5,
    "optimizer.stop": 0.9,
    "optimizer.f_sam_sigma": 0.5,
    "optimizer.f_sam_decay": 0.6,
    "optimizer.vasso_theta": 0.2,
    "optimizer.le_sam_sigma": 0.1,
    "optimizer.le_sam_warm_up": 0.1,
    "optimizer.le_sam_fall": 0.9,
    "runtime.precision": "bf16",
    "epochs": 7,
    "batch_size": 64,
    "m": 32,
    "label_smoothing": 0.1,
    "ema_decay": 0.99,
}
NO_SCIENCE: dict[str, Any] = {
    "augmentation.auto_augment_draws": "batch",  # without AutoAugment
    "analysis.name": "sharpness",
    "analysis.every": 3,
    "analysis.split": "test",
    "analysis.num_images": None,
    "analysis.chunk_size": 10,
    "analysis.statistics": "batch",
    "analysis.dtype": "float64",
    "analysis.seed": 4,
    "analysis.rho": 0.5,
    "analysis.adaptive": True,
    "analysis.m": [1, 2],
    "analysis.ascent_steps": [1, 5],
    "analysis.ascent_step_size": 0.5,
    "analysis.top": 3,
    "analysis.steps": 30,
    "analysis.probes": 2,
    "analysis.save_vectors": True,
    "analysis.per_layer": True,
    "analysis.directions": "run",
    "analysis.other": "outputs/a",
    "analysis.dimensions": 1,
    "analysis.span": 0.5,
    "analysis.points": 11,
    "analysis.num_batches": 2,
    "dataset.root": "/elsewhere",
    "dataset.download": False,
    "runtime.device": "cuda:1",
    "runtime.processes": 2,
    "runtime.keep_weights_every": 3,
    "runtime.parallel": "fsdp",
    "runtime.threads": 2,
    "runtime.compile": True,
    "runtime.deterministic": True,
    "runtime.graph": "false",
    "runtime.workers": 3,
    "runtime.grad_checkpointing": True,
    "runtime.checkpoint_minutes": 1.0,
    "runtime.timeout_minutes": 1.0,
    "seed": 5,
    "outputs": "/elsewhere",
    "logger": "wandb",
    "force": True,
}


def test_identity_of_known_configs_never_changes() -> None:
    # All earlier run directories have these digits in their names; with others, their runs would start again.
    assert identity(TrainConfig()) == "44136fa3"
    assert identity(changed({"dataset.name": "cifar10", "optimizer.rho": 0.1, "m": 32})) == "5dffb6ed"


@pytest.mark.parametrize("key", SCIENCE)
def test_identity_changes_with_every_key_that_decides_the_numbers(key: str) -> None:
    assert identity(changed({key: SCIENCE[key]})) != identity(TrainConfig())


@pytest.mark.parametrize("key", NO_SCIENCE)
def test_identity_does_not_count_seed_and_machine(key: str) -> None:
    assert identity(changed({key: NO_SCIENCE[key]})) == identity(TrainConfig())


@pytest.mark.parametrize(
    ("dataset", "counts"),
    [
        ({}, True),
        ({"dataset.reader": "image_folder"}, True),
        ({"dataset.reader": "image_folder", "dataset.in_memory": False}, False),
    ],
)
def test_identity_counts_the_draws_of_auto_augment_for_images_in_memory(dataset, counts) -> None:
    one, other = (
        {**dataset, "augmentation.auto_augment": "svhn", "augmentation.auto_augment_draws": draws}
        for draws in ("image", "batch")
    )
    assert (identity(changed(one)) != identity(changed(other))) == counts


def test_identity_tests_above_cover_every_key() -> None:
    assert sorted([*SCIENCE, *NO_SCIENCE]) == sorted(key for key, _, _ in config_items(TrainConfig()))


def test_identity_differs_between_all_single_changes() -> None:
    identities = [identity(changed({key: value})) for key, value in SCIENCE.items()]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("changes", [{"optimizer.rho": 0.3}, {"optimizer.adaptive": True}])
def test_identity_counts_what_only_sam_reads_for_sam_alone(changes: dict[str, Any]) -> None:
    assert identity(changed(changes)) != identity(TrainConfig())
    sgd = {"optimizer.name": "sgd"}
    assert identity(changed({**sgd, **changes})) == identity(changed(sgd))


def test_identity_counts_the_root_of_an_image_folder_alone() -> None:
    for reader, is_counted in (("image_folder", True), ("cifar10", False)):
        pets, birds = (
            identity(changed({"dataset.reader": reader, "dataset.root": root})) for root in ("pets", "birds")
        )
        assert (pets != birds) == is_counted


def test_identity_counts_a_run_to_relabel_from_but_not_its_seed() -> None:
    def labelled(seed: int, path: str) -> str:
        return identity(changed({"seed": seed, "dataset.relabel_from": path}))

    first = labelled(0, "o/sgd/seed0-1234abcd")
    assert labelled(12, "o/sgd/seed12-1234abcd") == first
    # A labelling run with another seed, condition or folder.
    others = ("o/sgd/seed1-1234abcd", "o/sgd/seed0-1234abce", "p/sgd/seed0-1234abcd")
    assert len({first, *(labelled(0, path) for path in others)}) == 4
    assert labelled(1, "o/sgd/seed0-1234abcd") != first


def test_identity_counts_absolute_paths_of_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ("dataset.label_file", "dataset.relabel_from", "model.weights"):
        assert identity(changed({key: "x"})) == identity(changed({key: str(tmp_path / "x")}))
    assert deciding_keys(changed({"model.weights": "hub"})) == {"model.weights": "hub"}


def test_science_leaves_defaults_out() -> None:
    assert deciding_keys(TrainConfig()) == {}
    config = changed({"epochs": 7, "optimizer.rho": 0.05, "batch_size": 128, "seed": 3, "force": True})
    assert deciding_keys(config) == {"epochs": 7}


def test_identity_of_old_runs_survives_a_new_key(monkeypatch: pytest.MonkeyPatch) -> None:
    config = changed({"epochs": 7})
    before = identity(config)

    @dataclasses.dataclass
    class Later:
        new_key: int = 3

    def more_items(config: TrainConfig) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
        yield from config_items(Later(), "optimizer.")
        yield from config_items(config)

    monkeypatch.setattr("sam.record.identity.config_items", more_items)
    assert identity(config) == before


def test_identity_does_not_depend_on_the_order_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    config = changed({"epochs": 7, "m": 32, "optimizer.rho": 0.3})
    before = identity(config)
    monkeypatch.setattr(
        "sam.record.identity.config_items", lambda config: reversed(list(config_items(config)))
    )
    assert list(deciding_keys(config)) == ["m", "epochs", "optimizer.rho"]
    assert identity(config) == before


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({}, "sam-rho0.05"),
        ({"optimizer.rho": 1e-3}, "sam-rho0.001"),
        ({"optimizer.rho": 2.0, "optimizer.adaptive": True}, "sam-rho2-adaptive"),
        ({"optimizer.rule": "msam", "optimizer.rho": 3.0}, "msam-rho3"),
        ({"optimizer.rule": "f_sam", "optimizer.rho": 0.1}, "f_sam-rho0.1"),
        ({"optimizer.name": "sgd", "optimizer.rho": 2.0, "optimizer.adaptive": True}, "sgd"),
    ],
)
def test_path_of_names_the_rule_and_its_rho(changes: dict[str, Any], rule: str) -> None:
    config = changed({"outputs": "/out", "seed": 12, "augmentation.name": "basic", **changes})
    assert path_of(config).parent == Path("/out/fashion_mnist_mini/resnet8/basic", rule)
    assert path_of(config).name == f"seed12-{identity(config)}"


@pytest.mark.parametrize(
    ("name", "base", "folder"),
    [
        ("sgd", "sgd", "sgd"),
        ("sgd", "adamw", "adamw"),
        ("sam", "sgd", "sam-rho0.05"),
        ("sam", "rmsprop", "rmsprop-sam-rho0.05"),
    ],
)
def test_path_names_the_base_optimizer(name: str, base: str, folder: str) -> None:
    assert path_of(changed({"optimizer.name": name, "optimizer.base": base})).parts[-2] == folder


def test_path_of_the_default_run_never_changes() -> None:
    expected = "outputs/fashion_mnist_mini/resnet8/none/sam-rho0.05/seed0-44136fa3"
    assert path_of(TrainConfig()).as_posix() == expected


@pytest.mark.parametrize(
    "command",
    ["python train.py m=32", "python train.py name='#a: b'", "a\nb: 1"],
)
def test_read_config_returns_what_was_written(tmp_path: Path, command: str) -> None:
    # Names that YAML would read as a number, null and a boolean.
    odd = {"dataset.name": "1e5", "model.name": "null", "augmentation.name": "on"}
    # Keys that must not be combined with others keep their defaults.
    alone = ("dataset.label_noise", "dataset.label_file", "dataset.label_name", "optimizer.adaptive")
    alone += ("optimizer.direction", "optimizer.ascent_steps", "optimizer.second_order", "runtime.compile")
    alone += (
        "optimizer.rule",
        "optimizer.f_sam_sigma",
        "optimizer.f_sam_decay",
        "optimizer.vasso_theta",
        "optimizer.le_sam_sigma",
        "optimizer.le_sam_warm_up",
        "optimizer.le_sam_fall",
        "optimizer.adaptive_for",
        "optimizer.ascent_step_size",
        "dataset.subset_seed",
        "dataset.label_noise_kind",
        "dataset.label_noise_over",
        "dataset.extra",
        "dataset.verify",
        "model.skip",
        "model.alpha",
        "model.shakedrop",
        "model.batch_norm",
        "model.dropout",
        "model.batch_norm_decay",
        "model.init",
        "analysis.adaptive",
        "runtime.parallel",
    )
    together = {key: value for key, value in {**SCIENCE, **NO_SCIENCE}.items() if key not in alone}
    valid = {"dataset.reader": "image_folder", "dataset.num_classes": None, "model.architecture": "timm"}
    config = changed({**together, **odd, **valid, "force": False, "optimizer.lr": 1e-5})
    write_config(tmp_path, config, command)
    read = read_config(tmp_path)
    assert read == config
    assert identity(read) == identity(config)


def test_read_config_fills_in_keys_that_came_later(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("epochs: 7\noptimizer:\n  rho: 0.3\n")
    assert read_config(tmp_path) == changed({"epochs": 7, "optimizer.rho": 0.3})


def test_read_config_refuses_other_directories(tmp_path: Path) -> None:
    message = (
        f"run={tmp_path} is not a run directory: {tmp_path}/config.yaml is missing; run directories are "
        "outputs/<dataset>/<model>/<augmentation>/<optimizer>/seed<k>-<id>"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"epochs: [",
        b"epochs: many\n",
        b"no_such_key: 1\n",
        b"dataset: null\n",
        b"- 1\n",
        b"\x00\x00",
        b"\xff\xfe\x80",
        b"",
    ],
)
def test_read_config_refuses_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"/config\.yaml is damaged: .+"):
        read_config(tmp_path)


def test_read_result_returns_what_was_written(tmp_path: Path) -> None:
    result = {"status": "complete", "message": "", "seconds": 3.5, "rho": None, "best": {"epoch": 3}}
    result |= {"identity": "12345678", "seed": 3}
    result |= {"test_error_pct": 12.5, "train_error_pct": 1.5}
    write_result(tmp_path, result)
    read = read_result(tmp_path) or {}
    assert list(read.pop("checksums")) == ["result.json"]
    assert read == result


def test_read_result_of_a_run_that_has_not_ended_is_none(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    assert read_result(tmp_path / "missing") is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"status": "complete"', b"\xff\xfe", b"\x00" * 64, b"[]", b"3", b'{"seed": 1}']
)
def test_read_result_of_a_damaged_file_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "result.json").write_bytes(content)
    assert read_result(tmp_path) is None


def test_read_result_of_a_folder_in_its_place_is_none(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    assert read_result(tmp_path) is None


def test_write_text_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("a much longer old text")
    write_text(path, "new, größer\n")
    assert path.read_text(encoding="utf-8") == "new, größer\n"
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_write_text_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="no space left on device"):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_clear_deletes_only_what_a_run_leaves(tmp_path: Path) -> None:
    for name in (
        "config.yaml",
        "metrics.csv",
        "checkpoint.pt",
        "checkpoint.previous.pt",
        "checkpoint.unfinished.pt",
        "result.json",
        ".lock",
        "notes.txt",
    ):
        (tmp_path / name).write_text("x")
    for folder in ("tensorboard", "plots"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("x")
    clear(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", "notes.txt", "plots"]
    assert (tmp_path / "plots" / "file").exists()


def test_clear_of_an_empty_directory_does_nothing(tmp_path: Path) -> None:
    clear(tmp_path)
    assert os.listdir(tmp_path) == []


def test_clear_deletes_half_written_files_of_a_killed_run(tmp_path: Path) -> None:
    for name in ("config.yaml.unfinished", "result.json.unfinished", "metrics.csv.unfinished"):
        (tmp_path / name).write_text("x")
    clear(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a process that holds the lock of a run directory."""
    program = (
        "import pathlib, sys, time\n"
        "from sam.record.directory import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('inside', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_locked_keeps_a_second_process_out_until_the_first_is_killed(
    tmp_path: Path, holder: "subprocess.Popen[str]"
) -> None:
    directory = tmp_path / "run"
    message = f"another process is working in {directory}; wait for it, or change seed or outputs"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        with locked(directory):
            pytest.fail("two processes are in one run directory")
    with locked(tmp_path / "other run"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(directory):
        assert directory.is_dir()


def test_locked_releases_the_lock_when_the_body_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="body"):
        with locked(tmp_path / "a" / "b"):
            raise KeyError("body")
    with locked(tmp_path / "a" / "b"):
        pass


def test_locked_reports_that_a_directory_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    directory = tmp_path / "file" / "run"
    message = (
        rf"^outputs: {re.escape(str(directory))} cannot be written \(.+\); "
        r"correct this, or choose another folder with outputs=\.\.\.$"
    )
    with pytest.raises(ConfigError, match=message):
        with locked(directory):
            pytest.fail("a directory inside a file")


def test_science_leaves_its_config_unchanged() -> None:
    config = changed({"epochs": 7})
    before = copy.deepcopy(config)
    deciding_keys(config)
    assert config == before


def test_read_config_that_may_not_be_read_is_not_said_to_be_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(tmp_path, TrainConfig(), "made by hand")

    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("sam.record.run_files.read_config_text", refuse)
    with pytest.raises(ConfigError, match=r"/config\.yaml cannot be read: \[Errno 13\] Permission denied"):
        read_config(tmp_path)
