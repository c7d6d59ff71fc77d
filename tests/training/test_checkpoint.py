"""Tests of sam/training/checkpoint.py.

A damaged checkpoint is made from a good one byte by byte. What counts: load() returns exactly what was saved,
or the state before it with a warning, and nothing else ever. Longer than 300 lines, since each way to be
damaged or killed is a test of its own.
"""

import errno
import hashlib
import io
import os
import pickle
import random
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sam.training import checkpoint
from sam.training.checkpoint import CheckpointStore, find_damage

OLD: dict[str, Any] = {"progress": {"epoch": 1}, "weight": torch.full((3,), 0.5)}
NEW: dict[str, Any] = {
    "model": {
        "weight": torch.arange(1.0, 7.0).view(2, 3),
        "transposed": torch.arange(6).view(2, 3).T,
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "count": torch.tensor(3),
        "empty": torch.zeros(0),
    },
    "progress": {"epoch": 2, "step": 7, "sums": None, "rows": [{"epoch": 1, "loss": 0.1 + 0.2}]},
    "mixed": [True, "text", (1, 2.5)],
}
RECORD = 46  # bytes of a record in a zip file's table of contents, before its name


def equal(left: Any, right: Any) -> bool:
    """Compare types, order of keys and every bit of every number."""
    if type(left) is not type(right):
        return False
    if isinstance(left, Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def content(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a loaded state without the number of its format."""
    if state is None:
        return None
    assert state["format"] == 4
    return {key: value for key, value in state.items() if key != "format"}


def load_quietly(store: CheckpointStore) -> tuple[dict[str, Any] | None, list[str]]:
    """Return what load() returned, and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state = store.load()
    return content(state), [str(warning.message) for warning in caught]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    """Return a store with an old and a new checkpoint."""
    store = CheckpointStore(tmp_path)
    store.save(OLD)
    store.save(NEW)
    return store


def flip(data: bytes, bit: int) -> bytes:
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def damaged_copies(data: bytes) -> list[tuple[str, bytes]]:
    """Return 300 copies with one flipped bit and 100 that end too early, the same ones on every call."""
    draw = random.Random(0)
    bits = draw.sample(range(8 * len(data)), 300)
    sizes = draw.sample(range(len(data)), 99)
    flipped = [(f"bit {bit}", flip(data, bit)) for bit in bits]
    return flipped + [(f"{size} bytes", data[:size]) for size in [0, *sizes]]


def test_load_without_checkpoints_returns_none(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path).load() is None


def test_load_returns_what_was_saved(store: CheckpointStore) -> None:
    assert equal(content(store.load()), NEW)
    # A new store finds it too.
    assert equal(content(CheckpointStore(store.newest.parent).load()), NEW)


def test_save_keeps_the_checkpoint_before(store: CheckpointStore) -> None:
    assert sorted(os.listdir(store.newest.parent)) == ["checkpoint.previous.pt", "checkpoint.pt"]
    store.newest.unlink()
    assert equal(content(store.load()), OLD)


def test_save_of_the_first_checkpoint_makes_one_file(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(NEW)
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_drop_previous_keeps_the_newest_alone(store: CheckpointStore) -> None:
    (store.newest.parent / "checkpoint.unfinished.pt").write_bytes(b"half")
    (store.newest.parent / "metrics.csv").write_text("mine")
    store.drop_previous()
    assert sorted(os.listdir(store.newest.parent)) == ["checkpoint.pt", "metrics.csv"]
    assert equal(content(store.load()), NEW)
    store.drop_previous()


@pytest.mark.parametrize("leftover", [b"", b"half of a checkpoint"])
def test_load_and_save_ignore_what_a_kill_left_unfinished(store: CheckpointStore, leftover: bytes) -> None:
    (store.newest.parent / "checkpoint.unfinished.pt").write_bytes(leftover)
    assert equal(content(store.load()), NEW)
    store.save(OLD)
    assert equal(content(store.load()), OLD)


class Killed(BaseException):
    """Stands for the end of the process."""


def die_at_call(number: int, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> list[str]:
    """Let the n-th call that makes save() durable raise, before or instead of its work; return the calls."""
    calls: list[str] = []

    def wrapped(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            if len(calls) == number:
                raise error("no space left on device")
            return original(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", wrapped("fsync", os.fsync))
    monkeypatch.setattr(os, "replace", wrapped("replace", os.replace))
    return calls


# The calls of a save: force the file to disk, rename newest, rename unfinished, force the folder to disk.
@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("error", [OSError, Killed])
def test_save_that_fails_anywhere_leaves_a_readable_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[BaseException]
) -> None:
    store = CheckpointStore(tmp_path)
    store.save({"number": 1})
    store.save({"number": 2})
    with monkeypatch.context() as patch:
        calls = die_at_call(number, patch, error)
        with pytest.raises(error, match="no space left on device"):
            store.save({"number": 3})
    assert calls == ["fsync", "replace", "replace", "fsync"][:number]
    state, told = load_quietly(store)
    assert state == {"number": 3 if number == 4 else 2}
    assert told == []
    # The next save works as if nothing had been.
    store.save({"number": 4})
    assert content(store.load()) == {"number": 4}


def test_save_killed_after_a_fallback_leaves_a_readable_checkpoint(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.newest.write_bytes(store.newest.read_bytes()[:100])
    assert equal(load_quietly(store)[0], OLD)
    with monkeypatch.context() as patch:
        die_at_call(2, patch, Killed)
        with pytest.raises(Killed):
            store.save({"number": 3})
    assert equal(load_quietly(store)[0], OLD)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_save_on_a_full_disk_leaves_both_checkpoints(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = {path: path.read_bytes() for path in (store.newest, store.previous)}

    def refuse(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="no space left on device"):
        store.save({"number": 3})
    assert {path: path.read_bytes() for path in before} == before


def test_save_that_reads_back_something_else_leaves_both_checkpoints(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in (store.newest, store.previous)}
    save = torch.save

    def save_on_a_bad_disk(state: Any, file: Any) -> None:
        save(state, file)
        file.flush()
        with open(store.newest.with_name("checkpoint.unfinished.pt"), "r+b") as disk:
            disk.seek(200)
            disk.write(b"\x55")

    monkeypatch.setattr(torch, "save", save_on_a_bad_disk)
    with pytest.raises(
        OSError, match=r"checkpoint\.unfinished\.pt could not be read back: its checksum differs"
    ):
        store.save(NEW)
    assert {path: path.read_bytes() for path in before} == before


def test_save_that_finds_no_room_names_the_file_and_leaves_no_half_of_it(store: CheckpointStore) -> None:
    unfinished = store.newest.with_name("checkpoint.unfinished.pt")
    unfinished.symlink_to("/dev/full")
    with pytest.raises(
        OSError, match=r"checkpoint\.unfinished\.pt.*No space left|No space left.*unfinished\.pt"
    ):
        store.save({"number": 3})
    assert sorted(os.listdir(unfinished.parent)) == ["checkpoint.previous.pt", "checkpoint.pt"]
    assert equal(content(store.load()), NEW)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_load_goes_back_only_where_the_newest_is_damaged(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    find = checkpoint.find_damage

    def refuse(path: Path) -> str | None:
        if path == store.newest:
            raise OSError(number, os.strerror(number), str(path))
        return find(path)

    monkeypatch.setattr(checkpoint, "find_damage", refuse)
    if number == errno.EIO:
        assert equal(load_quietly(store)[0], OLD)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            store.load()


def test_error_without_a_text_is_called_by_its_type(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = checkpoint.find_damage

    def refuse(path: Path) -> str | None:
        if path == store.newest:
            raise MemoryError
        return find(path)

    monkeypatch.setattr(checkpoint, "find_damage", refuse)
    state, told = load_quietly(store)
    assert equal(state, OLD)
    assert [str(warning) for warning in told] == [
        f"{store.newest} is damaged: MemoryError; going back to checkpoint.previous.pt"
    ]


def test_load_takes_the_one_before_while_the_newest_is_being_moved(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: True)  # as it was a moment ago
    store.newest.rename(store.newest.with_name("elsewhere"))
    state, told = load_quietly(store)
    assert equal(state, OLD)
    assert told == []


def test_load_of_a_damaged_checkpoint_warns_and_leaves_it_where_it_is(store: CheckpointStore) -> None:
    damaged = flip(store.newest.read_bytes(), 8 * 200)
    store.newest.write_bytes(damaged)
    message = (
        rf"^{re.escape(str(store.newest))} is damaged: its checksum differs; "
        r"going back to checkpoint\.previous\.pt$"
    )
    with pytest.warns(UserWarning, match=message):
        state = store.load()
    assert equal(content(state), OLD)
    assert store.newest.read_bytes() == damaged


def test_load_of_a_damaged_checkpoint_goes_back_with_a_warning_whatever_the_damage(
    store: CheckpointStore,
) -> None:
    data = store.newest.read_bytes()
    for damage, copy in damaged_copies(data):
        store.newest.write_bytes(copy)
        state, told = load_quietly(store)
        assert equal(state, OLD) and told, damage


def test_load_notices_a_record_marked_as_a_folder(store: CheckpointStore) -> None:
    with zipfile.ZipFile(store.newest) as archive:
        position = archive.start_dir
    data = store.newest.read_bytes()
    position = data.index(b"archive/data/0", position) - RECORD
    assert data[position : position + 4] == b"PK\x01\x02"
    # External attributes: the bit with which DOS marks folders.
    store.newest.write_bytes(flip(data, 8 * (position + 38) + 4))
    with pytest.warns(UserWarning, match="is damaged"):
        state = store.load()
    assert equal(content(state), OLD)


def test_load_with_both_checkpoints_damaged_tells_of_both(store: CheckpointStore) -> None:
    store.newest.write_bytes(store.newest.read_bytes()[:-30])
    store.previous.write_bytes(b"")
    message = (
        rf"^{re.escape(str(store.newest))} is damaged: .+; {re.escape(str(store.previous))} is damaged: .+\. "
        r"No checkpoint is left to continue from: start again with force=true$"
    )
    with pytest.raises(ValueError, match=message):
        store.load()


def test_load_with_the_only_checkpoint_damaged_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(NEW)
    store.newest.write_bytes(store.newest.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged: .+ No checkpoint is left"):
        store.load()


def test_load_refuses_another_format(store: CheckpointStore) -> None:
    store.previous.unlink()
    write_with_digest({"format": 2, "model": {}}, store.newest)
    with pytest.raises(ValueError, match="is damaged: its format is 2, this version reads 4"):
        store.load()


def write_with_digest(state: object, path: Path) -> None:
    """Write a file whose digest is right, whatever it holds."""
    whole = io.BytesIO()
    torch.save(state, whole)
    path.write_bytes(whole.getvalue() + hashlib.sha256(whole.getvalue()).digest())


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def malicious_store(store: CheckpointStore) -> CheckpointStore:
    write_with_digest({"format": 4, "model": Malicious(store.newest.parent / "ran")}, store.newest)
    assert find_damage(store.newest) is None
    return store


def test_load_refuses_to_run_code_in_a_checkpoint(malicious_store: CheckpointStore) -> None:
    malicious_store.previous.unlink()
    with pytest.raises((ValueError, pickle.UnpicklingError), match="(?i)weights.only|mkdir"):
        malicious_store.load()
    assert not (malicious_store.newest.parent / "ran").exists()


def test_load_goes_back_where_a_checkpoint_holds_code(malicious_store: CheckpointStore) -> None:
    with pytest.warns(UserWarning, match="is damaged"):
        state = malicious_store.load()
    assert equal(content(state), OLD)
    assert not (malicious_store.newest.parent / "ran").exists()


def test_find_damage_of_a_good_file_is_none(store: CheckpointStore) -> None:
    assert find_damage(store.newest) is None


def test_find_damage_tells_what_is_wrong(store: CheckpointStore, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no zip file")
    assert find_damage(tmp_path / "text") == "its checksum differs"
    store.newest.write_bytes(flip(store.newest.read_bytes(), 8 * 200))
    assert find_damage(store.newest) == "its checksum differs"


def test_checkpoint_is_a_file_that_torch_alone_can_read(store: CheckpointStore) -> None:
    assert equal(content(torch.load(store.newest, weights_only=True)), NEW)


def test_sync_folder_forces_the_folder_and_closes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    checkpoint.sync_folder(tmp_path)
    (descriptor,) = synced
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_damaged_weights_of_an_epoch_are_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    assert store.kept_epochs() == []
    for epoch in (10, 0, 5):
        store.keep(epoch, NEW["model"])
    (tmp_path / "weights" / "epoch-notes.pt").touch()
    assert store.kept_epochs() == [0, 5, 10]
    assert equal(store.kept(5), NEW["model"])
    path = tmp_path / "weights" / "epoch5.pt"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"epoch5\.pt is damaged: its checksum differs"):
        store.kept(5)
    store.keep(5, {"weight": 3})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"epoch5\.pt is damaged: it holds no weights"):
        store.kept(5)
