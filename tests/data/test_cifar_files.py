"""Tests of sam/data/cifar_files.py."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam.data.cifar_files import read_batches, read_names

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
LABELS = [3, 0, 2, 3]


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def written(folder: Path, content: Any, protocol: int = 4) -> Path:
    path = folder / "train"
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("key", ["labels", "fine_labels"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_read_batches_reads_every_protocol(tmp_path: Path, protocol: int, key: str, order: Any) -> None:
    content = {"data": np.asarray(PIXELS, order=order), key: LABELS, "filenames": ["a.png"] * 4}
    pixels, labels = read_batches([written(tmp_path, content, protocol)])
    assert np.array_equal(pixels, PIXELS.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1))
    assert labels == LABELS


def test_read_batches_reads_a_file_of_python_2_and_of_any_numpy(tmp_path: Path) -> None:
    # The beginning of the originals: text as SHORT_BINSTRING, and bytes as BINSTRING.
    raw = PIXELS[:1].tobytes()
    head = b"\x80\x02}(U\x04datac%s\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01K\x01M\x00\x0c\x86"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    tail = b"T" + len(raw).to_bytes(4, "little") + raw + b"tbU\x06labels](K\x07eu."
    for module in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        path = tmp_path / "data_batch_1"
        path.write_bytes(head % module + dtype + tail)
        pixels, labels = read_batches([path])
        assert np.array_equal(pixels[0], PIXELS[0].reshape(3, 32, 32).transpose(1, 2, 0))
        assert labels == [7]


def test_read_batches_joins_files_in_their_order(tmp_path: Path) -> None:
    paths = []
    for number in (1, 0):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(pickle.dumps({"data": PIXELS[number : number + 1], "labels": [number]}))
    pixels, labels = read_batches(paths)
    assert labels == [1, 0]
    assert np.array_equal(pixels.transpose(0, 3, 1, 2).reshape(2, 3072), PIXELS[[1, 0]])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["whole", "data", "labels"])
def test_no_code_in_a_file_runs(tmp_path: Path, protocol: int, place: str) -> None:
    trap = Call(os.mkdir, str(tmp_path / "sprung"))
    content = {"data": PIXELS, "labels": LABELS}
    path = written(tmp_path, trap if place == "whole" else {**content, place: trap}, protocol)
    for read in (lambda: read_batches([path]), lambda: read_names(path, "label_names")):
        with pytest.raises(
            ValueError, match=r"train cannot be read as a file of CIFAR: it wants to call .*mkdir"
        ):
            read()
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "function",
    [eval, getattr, np.load, np.fromfile, np.frombuffer, os.system, __import__],
    ids=lambda function: function.__name__,
)
def test_functions_other_than_those_of_an_array_are_refused(tmp_path: Path, function: Any) -> None:
    path = written(tmp_path, Call(function, "1"))
    with pytest.raises(ValueError, match="which no file of CIFAR does"):
        read_batches([path])


def test_a_path_below_an_allowed_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.")
    with pytest.raises(ValueError, match=r"wants to call numpy\.dtype\.__init__"):
        read_batches([path])


def test_an_array_that_claims_to_be_huge_takes_no_memory(tmp_path: Path) -> None:
    path = written(tmp_path, {"data": Call(np.ndarray, (2**45,)), "labels": LABELS})
    with pytest.raises(ValueError, match="cannot be read as a file of CIFAR"):
        read_batches([path])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], r"train holds a list; a file of CIFAR holds a dict$"),
        ({b"data": PIXELS, b"labels": LABELS}, "train has no array called data$"),
        ({"data": PIXELS.tolist(), "labels": LABELS}, "train has no array called data$"),
        (
            {"data": PIXELS.astype(np.int64), "labels": LABELS},
            r"data is int64 \[4, 3072\]; CIFAR has uint8 \[N, 3072\]",
        ),
        ({"data": PIXELS[:, 1:], "labels": LABELS}, r"data is uint8 \[4, 3071\]"),
        ({"data": PIXELS.reshape(4, 3, 32, 32), "labels": LABELS}, r"data is uint8 \[4, 3, 32, 32\]"),
        ({"data": PIXELS}, "no list of whole numbers called labels or fine_labels"),
        ({"data": PIXELS, "labels": [[3], 0, 2, 3]}, "no list of whole numbers"),
        ({"data": PIXELS, "labels": [3.0, 0, 2, 3]}, "no list of whole numbers"),
        ({"data": PIXELS, "labels": [True, 0, 2, 3]}, "no list of whole numbers"),
        ({"data": PIXELS, "labels": LABELS[1:]}, "train has 4 images and 3 labels$"),
    ],
)
def test_read_batches_says_what_is_wrong(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_batches([written(tmp_path, content)])


@pytest.mark.parametrize("content", [b"", b"damaged", b"\x80\x04}"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^/.*/train cannot be read as a file of CIFAR: .+"):
        read_batches([path])


def test_read_names_returns_the_names(tmp_path: Path) -> None:
    path = written(tmp_path, {"label_names": ["cat", "dog"], "num_vis": 3072}, protocol=2)
    assert read_names(path, "label_names") == ("cat", "dog")


@pytest.mark.parametrize("names", [None, "cat", [1, 2]])
def test_read_names_refuses_other_content(tmp_path: Path, names: Any) -> None:
    with pytest.raises(ValueError, match=r"train has no list of names called label_names$"):
        read_names(written(tmp_path, {"label_names": names}), "label_names")
