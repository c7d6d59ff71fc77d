"""Tests of sam/system/foreign_files.py: any file is read in bounded time and memory."""

import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from sam.system.foreign_files import (
    check_arrays,
    check_torch_file,
    find_link,
    open_regular,
    read_config_text,
    read_json,
    read_text,
)
from sam.training.checkpoint import CheckpointStore
from tests.faults.hostile import TORCH_BOMBS, add_digest, write_zip

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.timeout(10)
def test_only_regular_files_and_links_to_them_are_opened(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"x"
    for name in ("pipe", "device", "."):
        with pytest.raises(ValueError, match="it is not a regular file"):
            open_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nowhere")


def test_text_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "text").write_text("ä" * 50, encoding="utf-8")
    assert read_text(tmp_path / "text", 100) == "ä" * 50
    with pytest.raises(ValueError, match="it is longer than 99 bytes"):
        read_text(tmp_path / "text", 99)
    (tmp_path / "text").write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "text")


@pytest.mark.parametrize(("text", "has_alias"), [("a: '*b'\nc: 2 * 3", False), ("a: &b 1\nc: *b", True)])
def test_an_alias_is_not_just_an_asterisk(tmp_path, text, has_alias):
    (tmp_path / "config.yaml").write_text(text)
    if has_alias:
        with pytest.raises(ValueError, match="it has an alias"):
            read_config_text(tmp_path / "config.yaml")
    else:
        assert read_config_text(tmp_path / "config.yaml") == text


def test_a_reference_is_refused_before_it_takes_a_minute_to_parse(tmp_path):
    (tmp_path / "config.yaml").write_text("# ${a}\na: '" + "${" * 20_000 + "'")
    with pytest.raises(ValueError, match=r"it has a reference, (\$\{){40}, but the config of a run has only"):
        read_config_text(tmp_path / "config.yaml")


DEEP = {"list": ("[", "]"), "mapping": ('{"a": ', "}")}


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("read", [read_json, read_config_text])
def test_text_is_read_up_to_a_depth_of_100(tmp_path, kind, read):
    opening, closing = DEEP[kind]
    for depth in (100, 101):
        (tmp_path / "file").write_text(opening * depth + "1" + closing * depth)
        if depth == 100:
            read(tmp_path / "file")
        else:
            with pytest.raises(ValueError, match="it is nested deeper than 100 levels"):
                read(tmp_path / "file")


# A parser that recurses in C may crash its process.
READ_DEEP = """
import sys
from sam.system.foreign_files import read_config_text, read_json
for name, read in (("config.yaml", read_config_text), ("result.json", read_json)):
    try:
        read(sys.argv[1] + "/" + name)
    except ValueError as error:
        print("refused", name)
"""


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("is_closed", [False, True])
def test_deep_file_crashes_no_process(tmp_path, kind, is_closed):
    opening, closing = DEEP[kind]
    for name, size in (("config.yaml", 2**16), ("result.json", 2**24)):
        depth = size // (len(opening) + len(closing)) - 1
        (tmp_path / name).write_text(opening * depth + (closing * depth if is_closed else ""))
    done = subprocess.run(
        [sys.executable, "-c", READ_DEEP, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["refused config.yaml", "refused result.json"]


def test_arrays_are_measured_by_their_unpacked_size(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(1000))
    check_arrays(tmp_path / "a.npz", 8200)
    with pytest.raises(ValueError, match="it claims to hold 8128 bytes; allowed are 8000"):
        check_arrays(tmp_path / "a.npz", 8000)
    write_zip(tmp_path / "a.npz", {"x.npy": 10**15})
    with pytest.raises(ValueError, match="it claims to hold 1000000000000000 bytes"):
        check_arrays(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(zipfile.BadZipFile):
        check_arrays(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.zeros(1000))
    check_arrays(tmp_path / "a.npy", 8)  # not an archive, so its size is that of the file


@pytest.mark.parametrize("is_zip", [True, False])
def test_files_that_torch_saves_are_accepted(tmp_path, is_zip):
    state = {"a": torch.zeros(1000), "b": torch.zeros(1000, dtype=torch.bfloat16), "n": 3, "text": "x"}
    torch.save(state, tmp_path / "file", _use_new_zipfile_serialization=is_zip)
    check_torch_file(tmp_path / "file")


@pytest.mark.parametrize("name", [".", "analysis", "tensorboard"])
def test_links_are_found_where_a_run_writes(tmp_path, name):
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / name / "file").write_text("x")
    assert find_link(tmp_path) is None
    (tmp_path / name / "link").symlink_to("nowhere")
    assert find_link(tmp_path) == tmp_path / name / "link"


@pytest.mark.parametrize("name", TORCH_BOMBS)
def test_checkpoint_that_grows_is_refused(tmp_path, name):
    TORCH_BOMBS[name](tmp_path / "checkpoint.pt", mebibytes=8)
    add_digest(tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="checkpoint.pt is damaged: (it |a tensor in it claims)"):
        CheckpointStore(tmp_path).load()


BOMBS = """
import pathlib, sys
import torch
from sam.data.label_files import labels_from_file
from sam.models.timm_weights import read_tensors
from sam.training.checkpoint import CheckpointStore

def peak_mib():
    return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

readers = {
    "checkpoint": lambda path: CheckpointStore(path.parent).load(),
    "weights": lambda path: read_tensors(str(path)),
    "labels": lambda path: labels_from_file(path, "model", 32, 4),
}
torch.save({"a": torch.zeros(1)}, sys.argv[1] + "/warm")
torch.load(sys.argv[1] + "/warm", weights_only=True)
read_tensors(sys.argv[1] + "/warm")  # imports what it needs before memory is measured
before = peak_mib()
for folder in sys.argv[2:]:
    name = pathlib.Path(folder).name
    for kind, read in readers.items():
        try:
            read(pathlib.Path(folder, "checkpoint.pt"))
        except ValueError as error:
            print(name, kind, round(peak_mib() - before), error)
        else:  # an expanded tensor takes no memory, and is refused later: it fits no network
            assert (name, kind) == ("expanded", "weights"), f"{name} was accepted as {kind}"
        assert peak_mib() - before < 100, f"{name} as {kind} took {peak_mib() - before} MiB"
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_files_that_grow_to_half_a_gigabyte_are_refused_in_100_mebibytes(tmp_path):
    folders = [tmp_path / name for name in TORCH_BOMBS]
    for folder in folders:
        folder.mkdir()
        path = folder / "checkpoint.pt"
        TORCH_BOMBS[folder.name](path, mebibytes=512)
        add_digest(path)
        assert path.stat().st_size < 4 * 2**20
    command = [sys.executable, "-c", BOMBS, *map(str, [tmp_path, *folders])]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
