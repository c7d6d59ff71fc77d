"""Tests of sam/data/unverified.py, and of the readers in sam/data/datasets.py that use it."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.io
import torch
import torchvision

from sam.data import datasets
from sam.data.images import Dataset, Images
from sam.data.unverified import CONTENTS, Content, check_copy
from tests.data.test_datasets import (
    CIFAR,
    CIFAR_FILES,
    SVHN_LABELS,
    must_not_fetch,
    random_pixels,
    write_cifar,
    write_fashion_mnist,
    write_svhn,
)

CONTENT = Content(3, 2, (4, 5, 1), 2)


class Copy(NamedTuple):
    """How to read a tiny copy, and its first file."""

    read: Callable[[Path, bool], Dataset]
    first: str


COPIES = {
    "fashion_mnist": Copy(
        lambda root, verify: datasets.fashion_mnist(root, download=True, verify=verify),
        "FashionMNIST/raw/train-images-idx3-ubyte",
    ),
    "cifar10": Copy(
        lambda root, verify: datasets.cifar("cifar10", root, download=True, verify=verify),
        "cifar-10-batches-py/data_batch_1",
    ),
    "cifar100": Copy(
        lambda root, verify: datasets.cifar("cifar100", root, download=True, verify=verify),
        "cifar-100-python/train",
    ),
    "svhn": Copy(
        lambda root, verify: datasets.svhn(root, download=True, verify=verify, extra=False),
        "train_32x32.mat",
    ),
    "svhn with extra": Copy(
        lambda root, verify: datasets.svhn(root, download=True, verify=verify, extra=True),
        "extra_32x32.mat",
    ),
}
# Sizes of the tiny sets of test_datasets.py.
SIZES = {
    "fashion_mnist": (6, 3),
    "cifar10": (8, 4),
    "cifar100": (4, 4),
    "svhn": (3, 2),
    "svhn with extra": (8, 2),
}


@pytest.fixture(params=COPIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a tiny set, whose checksums are not those of the original."""
    train, test = SIZES[name]
    tiny = CONTENTS[name]._replace(num_train=train, num_test=test, num_classes=10)
    monkeypatch.setitem(CONTENTS, name, tiny)
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", must_not_fetch)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", must_not_fetch)
    monkeypatch.setattr(datasets, "download_url", must_not_fetch)
    if name in CIFAR:
        write_cifar(name, tmp_path)
        for split, files in CIFAR_FILES[name].items():
            monkeypatch.setattr(CIFAR[name][0], f"{split}_list", [[file, "0" * 32] for file in files])
    elif name == "fashion_mnist":
        write_fashion_mnist(tmp_path)
    else:
        write_svhn(tmp_path)
    return tmp_path


def test_a_copy_with_other_checksums_is_read_only_unverified(name: str, root: Path) -> None:
    with pytest.raises(ValueError, match=r"is corrupt \(its md5 .*say dataset\.verify=false$"):
        COPIES[name].read(root, True)
    data = COPIES[name].read(root, False)
    assert (len(data.train), len(data.test)) == SIZES[name]
    assert data.num_classes == 10


def test_an_unverified_copy_gives_what_is_in_its_files(root: Path, name: str) -> None:
    data = COPIES[name].read(root, False)
    if name in CIFAR:
        labels = write_cifar(name, root)["train"][1]
    elif name == "fashion_mnist":
        labels = write_fashion_mnist(root)["train-labels-idx1-ubyte"].tolist()
    else:
        splits = ("extra", "train") if "extra" in name else ("train",)
        labels = [label % 10 for split in splits for label in SVHN_LABELS[split]]
    assert data.train.targets.tolist() == labels
    assert data.train.targets.dtype == torch.int64


def test_an_unverified_copy_is_not_completed_by_a_download(name: str, root: Path) -> None:
    (root / COPIES[name].first).unlink()
    message = r"is missing \(dataset\.verify=false\)\. Download it \(network and dataset\.verify=true\)"
    with pytest.raises(FileNotFoundError, match=message):
        COPIES[name].read(root, False)


def test_a_damaged_file_of_an_unverified_copy_is_named(name: str, root: Path) -> None:
    path = root / COPIES[name].first
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=rf"^/.*/{path.name} cannot be read"):
        COPIES[name].read(root, False)


def test_an_unverified_copy_must_be_complete(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, _ = SIZES[name]
    monkeypatch.setitem(CONTENTS, name, CONTENTS[name]._replace(num_train=train + 1))
    with pytest.raises(
        ValueError, match=rf"training images are uint8 \[{train}, .*original has uint8 \[{train + 1},"
    ):
        COPIES[name].read(root, False)


def test_labels_of_svhn_outside_its_digits_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONTENTS, "svhn", CONTENTS["svhn"]._replace(num_train=2, num_test=2))
    for split in ("train", "test"):
        pixels = random_pixels(32, 32, 3, 2)
        scipy.io.savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": np.array([[10], [20]])})
    with pytest.raises(ValueError, match=r"the training labels go from 0 to 20; svhn has the labels 0 to 9"):
        COPIES["svhn"].read(tmp_path, False)


def test_names_of_other_classes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar("cifar100", tmp_path)
    meta = tmp_path / "cifar-100-python" / "meta"
    meta.write_bytes(pickle.dumps({"fine_label_names": ["only"]}))
    with pytest.raises(ValueError, match=r"has names of 1 classes; cifar100 has 100$"):
        COPIES["cifar100"].read(tmp_path, False)


def made(**changes: Any) -> Dataset:
    keys = {
        "pixels": torch.zeros(3, 4, 5, 1, dtype=torch.uint8),
        "targets": torch.tensor([0, 1, 1]),
        **changes,
    }
    test = Images(torch.zeros(2, 4, 5, 1, dtype=torch.uint8), torch.tensor([1, 0]))
    return Dataset(Images(**keys), test, ("a", "b"), (0.5,), (0.5,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"pixels": torch.zeros(3, 4, 5, 1)},
            r"the training images are float32 \[3, 4, 5, 1\]; the original",
        ),
        (
            {"pixels": torch.zeros(3, 5, 4, 1, dtype=torch.uint8)},
            r"uint8 \[3, 5, 4, 1\]; .* uint8 \[3, 4, 5, 1\]$",
        ),
        ({"targets": torch.tensor([0, 1])}, "the training images have 2 labels; there are 3 images$"),
        ({"targets": torch.tensor([0, 1, 2])}, "training labels go from 0 to 2; tiny has the labels 0 to 1$"),
        ({"targets": torch.tensor([0, 1, -1])}, "training labels go from -1 to 1"),
    ],
)
def test_check_copy_says_what_differs(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONTENTS, "tiny", CONTENT)
    check_copy("tiny", Path("/some"), made())
    with pytest.raises(ValueError, match=f"^/some: .*{message}"):
        check_copy("tiny", Path("/some"), made(**changes))
