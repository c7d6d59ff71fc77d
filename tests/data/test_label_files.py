"""Tests of sam/data/label_files.py."""

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sam.data.label_files import labels_from_file, read_labels, write_labels

LABELS = np.array([0, 2, 1, 2])


def _saved(folder: Path, suffix: str, **content: Any) -> Path:
    path = folder / f"labels{suffix}"
    if suffix == ".npz":
        np.savez(path, **content)
    elif suffix == ".npy":
        np.save(path, *content.values())
    else:
        torch.save(content, path)
    return path


@settings(max_examples=30, deadline=None)
@given(
    labels=arrays.arrays(
        arrays.integer_dtypes() | arrays.unsigned_integer_dtypes(), 6, elements=st.integers(0, 9)
    ),
    suffix=st.sampled_from([".npz", ".npy", ".pt"]),
)
def test_labels_from_file_are_those_written(
    tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray[Any, Any], suffix: str
) -> None:
    path = _saved(tmp_path_factory.mktemp("labels"), suffix, worse_label=labels)
    read = labels_from_file(path, None if suffix == ".npy" else "worse_label", 6, 10)
    assert read.dtype == torch.int64
    assert read.tolist() == labels.tolist()


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_labels_from_file_takes_the_array_of_that_name(tmp_path: Path, suffix: str) -> None:
    path = _saved(tmp_path, suffix, clean_label=np.zeros(4, int), worse_label=LABELS)
    assert labels_from_file(path, "worse_label", 4, 3).tolist() == LABELS.tolist()


def test_labels_from_file_reads_a_pt_file_of_an_older_numpy(tmp_path: Path) -> None:
    written = zipfile.ZipFile(_saved(tmp_path, ".pt", worse_label=LABELS))
    path = tmp_path / "older.pt"
    with written, zipfile.ZipFile(path, "w") as older:
        for member in written.namelist():
            content = written.read(member).replace(b"numpy._core.", b"numpy.core.")
            older.writestr(member, content)
        assert b"numpy.core." in older.read("labels/data.pkl")
    assert labels_from_file(path, "worse_label", 4, 3).tolist() == LABELS.tolist()


def test_labels_from_file_reads_the_older_format_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "labels.pt"
    torch.save({"worse_label": LABELS}, path, _use_new_zipfile_serialization=False)
    assert labels_from_file(path, "worse_label", 4, 3).tolist() == LABELS.tolist()


def test_labels_from_file_reads_tensors(tmp_path: Path) -> None:
    path = _saved(tmp_path, ".pt", worse_label=torch.tensor(LABELS))
    assert labels_from_file(path, "worse_label", 4, 3).tolist() == LABELS.tolist()


def test_labels_from_file_runs_nothing_in_a_pt_file(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = _saved(tmp_path, ".pt", worse_label=Trap())
    with pytest.raises(
        ValueError, match=r"labels\.pt is not a file of torch, or holds more than arrays of whole"
    ):
        labels_from_file(path, "worse_label", 4, 3)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:3], r"has shape \[3\], but the training set has 4 images"),
        (LABELS.reshape(4, 1), r"has shape \[4, 1\], but the training set has 4 images"),
        (LABELS.astype(float), "has type float64; labels are whole numbers"),
        (LABELS > 0, "has type bool; labels are whole numbers"),
        (np.array(list("abcd")), "has type <U1; labels are whole numbers"),
        (LABELS + 1, "has labels from 1 to 3; 3 classes have the labels 0 to 2"),
        (LABELS - 1, "has labels from -1 to 1; 3 classes have the labels 0 to 2"),
        (np.full(4, 2**64 - 1, np.uint64), "has labels from 18446744073709551615 to"),
    ],
)
def test_labels_from_file_refuses(tmp_path: Path, labels: np.ndarray[Any, Any], message: str) -> None:
    path = _saved(tmp_path, ".npz", worse_label=labels)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}, worse_label {message}"):
        labels_from_file(path, "worse_label", 4, 3)


def test_labels_from_file_refuses_python_objects(tmp_path: Path) -> None:
    path = _saved(tmp_path, ".npy", labels=np.array([0, None, 1, 2], dtype=object))
    with pytest.raises(ValueError, match=r"labels\.npy cannot be read: Object arrays cannot be loaded"):
        labels_from_file(path, None, 4, 3)


@pytest.mark.parametrize("name", ["noisy_label", None])
@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_labels_from_file_lists_the_arrays_there_are(tmp_path: Path, suffix: str, name: str | None) -> None:
    path = _saved(tmp_path, suffix, worse_label=LABELS, clean_label=LABELS)
    with pytest.raises(ValueError, match=f"has no array {name}; it has clean_label, worse_label$"):
        labels_from_file(path, name, 4, 3)


def test_labels_from_file_of_a_single_array_refuses_a_name(tmp_path: Path) -> None:
    path = _saved(tmp_path, ".npy", labels=LABELS)
    with pytest.raises(
        ValueError, match="holds a single array without a name; leave out the name worse_label$"
    ):
        labels_from_file(path, "worse_label", 4, 3)


def test_labels_from_file_without_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^there is no file .*labels\.npz$"):
        labels_from_file(tmp_path / "labels.npz", "worse_label", 4, 3)


def test_labels_from_file_refuses_another_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").touch()
    with pytest.raises(ValueError, match=r"labels\.csv is not a \.npz, \.npy or \.pt file$"):
        labels_from_file(tmp_path / "labels.csv", "worse_label", 4, 3)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_labels_from_file_refuses_half_a_file(tmp_path: Path, suffix: str, share: float) -> None:
    path = _saved(tmp_path, suffix, worse_label=np.arange(1000))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"labels\{suffix} (cannot be read: .|is not a file of torch)"):
        labels_from_file(path, "worse_label", 1000, 1000)


def test_labels_are_read_as_written(tmp_path: Path) -> None:
    clean, trained = torch.arange(4), torch.tensor(LABELS)
    write_labels(tmp_path / "labels.npz", clean, trained)
    read = read_labels(tmp_path / "labels.npz")
    assert [labels.dtype for labels in read] == [torch.int64, torch.int64]
    assert [labels.tolist() for labels in read] == [clean.tolist(), trained.tolist()]


def test_write_labels_replaces_what_is_there_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "labels.npz"
    write_labels(path, torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.long))
    write_labels(path, torch.arange(4), torch.arange(4))
    assert len(read_labels(path)[0]) == 4
    assert list(tmp_path.iterdir()) == [path]


def test_write_labels_that_fails_leaves_the_file_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels.npz"
    write_labels(path, torch.arange(4), torch.arange(4))

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_labels(path, torch.arange(9), torch.arange(9))
    assert len(read_labels(path)[0]) == 4


def test_read_labels_without_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^there is no file .*labels\.npz$"):
        read_labels(tmp_path / "labels.npz")


@pytest.mark.parametrize(
    "trained", [LABELS[:3], LABELS.astype(float), LABELS.astype(np.uint8), LABELS.reshape(2, 2)]
)
def test_read_labels_of_a_changed_file_says_so(tmp_path: Path, trained: np.ndarray[Any, Any]) -> None:
    path = _saved(tmp_path, ".npz", clean=LABELS, trained=trained)
    message = r"is damaged: clean is int64 \[4\] and .*; delete it: the labels are then computed again$"
    with pytest.raises(ValueError, match=message):
        read_labels(path)


def test_read_labels_of_half_a_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "labels.npz"
    write_labels(path, torch.arange(4), torch.arange(4))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"labels\.npz cannot be read: "):
        read_labels(path)


def test_read_labels_with_any_flipped_bit_are_the_same_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.npz"
    clean, trained = torch.arange(4), torch.tensor([3, 1, 1, 0])
    write_labels(path, clean, trained)
    content = path.read_bytes()
    refused, bits = 0, range(0, 8 * len(content), 11)
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            read = read_labels(path)
        except ValueError as error:
            assert str(error).endswith("; delete it: the labels are then computed again")
            refused += 1
        else:
            assert torch.equal(read[0], clean)
            assert torch.equal(read[1], trained)
    assert refused > len(bits) / 2


def test_read_labels_that_may_not_be_opened_are_not_to_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels.npz"
    write_labels(path, torch.arange(4), torch.arange(4))

    def refuse(path: Path) -> None:
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr("sam.data.label_files.check_arrays", refuse)
    with pytest.raises(OSError, match=r"Too many open files: '.*labels\.npz'$"):
        read_labels(path)
