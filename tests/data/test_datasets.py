"""Tests of sam/data/datasets.py. Downloads are replaced, so no test uses the network.

Longer than 300 lines, since each reader needs its own tiny files, written by hand.
"""

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torch
import torchvision

from sam.data import datasets
from sam.data.augmentation import Augmentation, Normalization
from sam.data.batches import EvaluationBatches, TrainBatches
from sam.data.images import Dataset, Images


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def random_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def fail_to_fetch(*_: Any, **__: Any) -> None:
    raise URLError("no route to host")


def must_not_fetch(*_: Any, **__: Any) -> None:
    pytest.fail("a download started, although download=False")


# --- the dataset inside the package


@pytest.fixture(scope="module")
def mini() -> Dataset:
    return datasets.fashion_mnist_mini()


@pytest.mark.parametrize("split", ["train", "test"])
def test_fashion_mnist_mini_has_500_images_of_every_class(mini: Dataset, split: str) -> None:
    images: Images = getattr(mini, split)
    assert images.pixels.shape == (5000, 28, 28, 1)
    assert images.pixels.dtype == torch.uint8
    assert images.targets.dtype == torch.int64
    assert torch.bincount(images.targets).tolist() == [500] * 10


def test_fashion_mnist_mini_has_no_image_in_both_splits(mini: Dataset) -> None:
    train, test = ({image.tobytes() for image in part.pixels.numpy()} for part in (mini.train, mini.test))
    assert train.isdisjoint(test)


def test_fashion_mnist_mini_names_ten_classes_and_one_channel(mini: Dataset) -> None:
    assert mini.num_classes == 10
    assert mini.num_channels == 1
    assert mini.class_names[0] == "T-shirt/top"
    assert mini.class_names[9] == "Ankle boot"


def test_fashion_mnist_mini_classes_look_like_their_names(mini: Dataset) -> None:
    # Trousers (1) leave the left and right margins dark; pullovers (2) and coats (4) fill them with sleeves.
    margin = mini.train.pixels[:, 8:20, 2:7].double().mean((1, 2, 3))
    means = [float(margin[mini.train.targets == number].mean()) for number in (1, 2, 4)]
    assert means[0] < 0.5 * min(means[1:])


def test_fashion_mnist_statistics_are_close_to_those_of_the_mini_set(mini: Dataset) -> None:
    pixels = mini.train.pixels.double() / 255
    # The means of images have a standard deviation of 0.13, so the mean of 5,000 has 0.13 / 5000**0.5.
    assert mini.mean[0] == pytest.approx(float(pixels.mean()), abs=6 * 0.13 / 5000**0.5)
    assert mini.std[0] == pytest.approx(float(pixels.std()), abs=0.01)


def test_fashion_mnist_mini_refuses_a_corrupt_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(datasets.MINI_PATH.read_bytes())
    content[len(content) // 2] ^= 1
    copy = tmp_path / "copy.npz"
    copy.write_bytes(content)
    monkeypatch.setattr(datasets, "MINI_PATH", copy)
    with pytest.raises(ValueError, match=r"copy\.npz is corrupt \(checksum differs\); restore it with git"):
        datasets.fashion_mnist_mini()


# --- Fashion-MNIST


def write_fashion_mnist(root: Path) -> dict[str, np.ndarray]:
    """Write the four idx files of a tiny set by hand and return the arrays in them."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "train-images-idx3-ubyte": random_pixels(6, 28, 28, seed=1),
        "train-labels-idx1-ubyte": np.array([9, 0, 3, 3, 1, 7], dtype=np.uint8),
        "t10k-images-idx3-ubyte": random_pixels(3, 28, 28, seed=2),
        "t10k-labels-idx1-ubyte": np.array([5, 2, 8], dtype=np.uint8),
    }
    for name, array in arrays.items():
        # Two zeros, type 8 (uint8), number of dimensions, then each dimension as a big-endian int32.
        header = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
        (folder / name).write_bytes(header + array.tobytes())
    return arrays


@pytest.fixture
def fashion_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the tiny set, and make its checksums the expected ones."""
    names = write_fashion_mnist(tmp_path)
    folder = tmp_path / "FashionMNIST" / "raw"
    monkeypatch.setattr(datasets, "FASHION_MNIST_FILES", {name: md5(folder / name) for name in names})
    return tmp_path


def assert_is_the_fashion_set(dataset: Dataset, arrays: dict[str, np.ndarray]) -> None:
    for images, prefix in ((dataset.train, "train"), (dataset.test, "t10k")):
        assert np.array_equal(images.pixels.numpy()[..., 0], arrays[f"{prefix}-images-idx3-ubyte"])
        assert images.targets.tolist() == arrays[f"{prefix}-labels-idx1-ubyte"].tolist()
        assert images.pixels.dtype == torch.uint8
        assert images.targets.dtype == torch.int64


def test_fashion_mnist_returns_what_was_written(fashion_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", must_not_fetch)
    dataset = datasets.fashion_mnist(fashion_root, download=False, verify=True)
    assert_is_the_fashion_set(dataset, write_fashion_mnist(fashion_root))
    assert dataset.class_names[1] == "Trouser"


def test_fashion_mnist_reads_the_verified_files_not_leftovers_of_an_old_torchvision(
    fashion_root: Path,
) -> None:
    processed = fashion_root / "FashionMNIST" / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(6, 28, 28, dtype=torch.uint8), torch.zeros(6).long()), processed / name)
    dataset = datasets.fashion_mnist(fashion_root, download=False, verify=True)
    assert_is_the_fashion_set(dataset, write_fashion_mnist(fashion_root))


def test_fashion_mnist_tells_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", must_not_fetch)
    message = (
        r"^Fashion-MNIST is not there: /.*/FashionMNIST/raw/train-images-idx3-ubyte is missing "
        r"\(dataset\.download=false\)\. Download it \(network and dataset\.download=true\), "
        r"or put a copy there, or name the folder above FashionMNIST with dataset\.root=\.\.\.$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        datasets.fashion_mnist(tmp_path, download=False, verify=True)


def test_fashion_mnist_tells_why_the_download_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", fail_to_fetch)
    with pytest.raises(FileNotFoundError, match=r"the download failed: <urlopen error no route to host>"):
        datasets.fashion_mnist(tmp_path, download=True, verify=True)


def test_fashion_mnist_reads_what_it_fetched(fashion_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fashion_root / "FashionMNIST" / "raw"
    (folder / "t10k-labels-idx1-ubyte").unlink()

    def fetch(_: Any) -> None:
        write_fashion_mnist(fashion_root)

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", fetch)
    dataset = datasets.fashion_mnist(fashion_root, download=True, verify=True)
    assert dataset.test.targets.tolist() == [5, 2, 8]


@pytest.mark.parametrize("download", [False, True])
def test_fashion_mnist_refuses_a_corrupt_file(fashion_root: Path, download: bool) -> None:
    path = fashion_root / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
    expected = md5(path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    message = (
        rf"t10k-images-idx3-ubyte is corrupt \(its md5 is not {expected}\); replace it with an intact copy, "
        r"or, if it is a right copy that is packed in another way, say dataset\.verify=false$"
    )
    with pytest.raises(ValueError, match=message):
        datasets.fashion_mnist(fashion_root, download=download, verify=True)


# --- CIFAR

CIFAR = {
    "cifar10": (torchvision.datasets.CIFAR10, "cifar-10-batches-py", "labels", "batches.meta", "label_names"),
    "cifar100": (
        torchvision.datasets.CIFAR100,
        "cifar-100-python",
        "fine_labels",
        "meta",
        "fine_label_names",
    ),
}
CIFAR_FILES = {
    "cifar10": {"train": ["data_batch_1", "data_batch_2"], "test": ["test_batch"]},
    "cifar100": {"train": ["train"], "test": ["test"]},
}
NUM_PER_FILE = 4


def write_cifar(name: str, root: Path) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Write a tiny set in the python version's format; return pixels [N, 3, 32, 32] and classes by split."""
    _, folder_name, label_key, meta_name, names_key = CIFAR[name]
    folder = root / folder_name
    folder.mkdir(parents=True, exist_ok=True)
    content = {}
    for split, file_names in CIFAR_FILES[name].items():
        pixels = random_pixels(NUM_PER_FILE * len(file_names), 3, 32, 32, seed=len(split))
        labels = [(7 * number + 3) % 10 for number in range(len(pixels))]
        for start, file_name in zip(range(0, len(pixels), NUM_PER_FILE), file_names, strict=True):
            rows = slice(start, start + NUM_PER_FILE)
            entry = {"data": pixels[rows].reshape(NUM_PER_FILE, 3072), label_key: labels[rows]}
            (folder / file_name).write_bytes(pickle.dumps(entry))
        content[split] = (pixels, labels)
    (folder / meta_name).write_bytes(pickle.dumps({names_key: [f"class {n}" for n in range(10)]}))
    return content


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cifar_root(cifar_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the tiny set, and make its checksums the expected ones."""
    write_cifar(cifar_name, tmp_path)
    reader, folder_name, _, meta_name, names_key = CIFAR[cifar_name]
    folder = tmp_path / folder_name
    for split, file_names in CIFAR_FILES[cifar_name].items():
        monkeypatch.setattr(reader, f"{split}_list", [[name, md5(folder / name)] for name in file_names])
    meta = {"filename": meta_name, "key": names_key, "md5": md5(folder / meta_name)}
    monkeypatch.setattr(reader, "meta", meta)
    monkeypatch.setattr(reader, "download", must_not_fetch)
    return tmp_path


def test_cifar_returns_what_was_written(cifar_name: str, cifar_root: Path) -> None:
    dataset = datasets.cifar(cifar_name, cifar_root, download=True, verify=True)
    for split, (pixels, labels) in write_cifar(cifar_name, cifar_root).items():
        images: Images = getattr(dataset, split)
        # A record has 1024 red bytes, then 1024 green, then 1024 blue, each row by row.
        assert np.array_equal(images.pixels.numpy(), pixels.transpose(0, 2, 3, 1))
        assert images.targets.tolist() == labels
        assert images.pixels.dtype == torch.uint8
        assert images.targets.dtype == torch.int64
    assert dataset.class_names == tuple(f"class {number}" for number in range(10))


def walk(dataset: Dataset) -> None:
    """Take one training batch and all test batches."""
    cpu = torch.device("cpu")
    normalize = Normalization(dataset.mean, dataset.std, dataset.train.shape[1], cpu)
    batches = TrainBatches(
        dataset.train,
        Augmentation(),
        normalize,
        device=cpu,
        batch_size=2,
        seed=0,
        num_classes=dataset.num_classes,
    )
    assert len(next(batches.epoch(0))[0]) == 2
    evaluated = EvaluationBatches(dataset.test, normalize, device=cpu, batch_size=2)
    assert sum(len(targets) for _, targets in evaluated) == len(dataset.test)


def test_cifar_images_can_be_batched(cifar_name: str, cifar_root: Path) -> None:
    walk(datasets.cifar(cifar_name, cifar_root, download=True, verify=True))


def test_fashion_mnist_images_can_be_batched(fashion_root: Path) -> None:
    walk(datasets.fashion_mnist(fashion_root, download=False, verify=True))


def test_cifar_tells_what_is_missing(cifar_name: str, tmp_path: Path) -> None:
    title = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[cifar_name]
    folder = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[cifar_name]
    first = {"cifar10": "data_batch_1", "cifar100": "train"}[cifar_name]
    message = (
        rf"^{title} is not there: /.*/{folder}/{first} is missing \(dataset\.download=false\)\. "
        rf"Download it \(network and dataset\.download=true\), or put a copy there, "
        rf"or name the folder above {folder} with dataset\.root=\.\.\.$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        datasets.cifar(cifar_name, tmp_path, download=False, verify=True)


def test_cifar_tells_which_file_of_a_tree_is_missing(cifar_name: str, cifar_root: Path) -> None:
    meta_name = CIFAR[cifar_name][3]
    next(cifar_root.glob(f"*/{meta_name}")).unlink()
    with pytest.raises(FileNotFoundError, match=rf"/{meta_name} is missing \(dataset\.download=false\)"):
        datasets.cifar(cifar_name, cifar_root, download=False, verify=True)


def test_cifar_tells_why_the_download_failed(
    cifar_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR[cifar_name][0], "download", fail_to_fetch)
    with pytest.raises(FileNotFoundError, match=r"the download failed: <urlopen error no route to host>"):
        datasets.cifar(cifar_name, tmp_path, download=True, verify=True)


def test_cifar_reads_what_it_fetched(
    cifar_name: str, cifar_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next(cifar_root.glob("*/test*")).unlink()
    monkeypatch.setattr(CIFAR[cifar_name][0], "download", lambda _: write_cifar(cifar_name, cifar_root))
    assert len(datasets.cifar(cifar_name, cifar_root, download=True, verify=True).test) == NUM_PER_FILE


def test_cifar_refuses_every_corrupt_file_before_it_is_unpickled(cifar_name: str, cifar_root: Path) -> None:
    for path in sorted(cifar_root.glob("*/*")):
        content = path.read_bytes()
        path.write_bytes(content[:-2])
        expected = hashlib.md5(content).hexdigest()
        with pytest.raises(ValueError, match=rf"{path.name} is corrupt \(its md5 is not {expected}\)"):
            datasets.cifar(cifar_name, cifar_root, download=True, verify=True)
        path.write_bytes(content)


# --- SVHN

SVHN_FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat", "extra": "extra_32x32.mat"}
SVHN_LABELS = {"train": [10, 1, 9], "test": [2, 10], "extra": [3, 3, 10, 4, 5]}


def svhn_pixels() -> dict[str, np.ndarray]:
    """Return the pixels of a tiny set, [N, 32, 32, 3] by split."""
    return {
        split: random_pixels(len(labels), 32, 32, 3, seed=seed)
        for seed, (split, labels) in enumerate(SVHN_LABELS.items())
    }


def write_svhn(root: Path) -> None:
    """Write the tiny set in the format of the originals. The files contain the time, so write them once."""
    for split, pixels in svhn_pixels().items():
        labels = np.array(SVHN_LABELS[split], dtype=np.uint8)[:, None]
        scipy.io.savemat(root / SVHN_FILES[split], {"X": pixels.transpose(1, 2, 3, 0), "y": labels})


@pytest.fixture
def svhn_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the tiny set, and make its checksums the expected ones."""
    write_svhn(tmp_path)
    known = {split: [f"http://{name}", name, md5(tmp_path / name)] for split, name in SVHN_FILES.items()}
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", known)
    monkeypatch.setattr(datasets, "download_url", must_not_fetch)
    return tmp_path


@pytest.mark.parametrize("extra", [True, False])
def test_svhn_returns_what_was_written_and_extra_images_come_first(svhn_root: Path, extra: bool) -> None:
    pixels = svhn_pixels()
    dataset = datasets.svhn(svhn_root, download=True, verify=True, extra=extra)
    training = ("extra", "train") if extra else ("train",)
    for images, splits in ((dataset.train, training), (dataset.test, ("test",))):
        assert np.array_equal(images.pixels.numpy(), np.concatenate([pixels[split] for split in splits]))
        # The digit 0 is labelled 10 in the files.
        assert images.targets.tolist() == [label % 10 for split in splits for label in SVHN_LABELS[split]]
        assert images.pixels.dtype == torch.uint8
        assert images.targets.dtype == torch.int64
    assert dataset.class_names == tuple("0123456789")


@pytest.mark.parametrize("extra", [True, False])
def test_svhn_holds_out_what_follows_the_first_65929_images_of_train(svhn_root: Path, extra: bool) -> None:
    dataset = datasets.svhn(svhn_root, download=False, verify=True, extra=extra)
    assert dataset.num_validation == 73_257 - 65_929


def test_svhn_images_can_be_batched(svhn_root: Path) -> None:
    walk(datasets.svhn(svhn_root, download=False, verify=True, extra=True))


def test_svhn_needs_the_extra_images_only_with_extra(svhn_root: Path) -> None:
    (svhn_root / "extra_32x32.mat").unlink()
    assert len(datasets.svhn(svhn_root, download=False, verify=True, extra=False).train) == 3
    message = (
        r"^SVHN is not there: /.*/extra_32x32\.mat is missing \(dataset\.download=false\)\. Download it "
        r"\(network and dataset\.download=true\), or put a copy there, or name the folder above "
        r"extra_32x32\.mat with dataset\.root=\.\.\.$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        datasets.svhn(svhn_root, download=False, verify=True, extra=True)


def test_svhn_tells_why_the_download_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "download_url", fail_to_fetch)
    with pytest.raises(FileNotFoundError, match=r"the download failed: <urlopen error no route to host>"):
        datasets.svhn(tmp_path, download=True, verify=True, extra=True)


def test_svhn_fetches_each_wanted_file(svhn_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = {name: (svhn_root / name).read_bytes() for name in SVHN_FILES.values()}
    for name in original:
        (svhn_root / name).unlink()

    def fetch(url: str, root: Path, name: str, expected: str) -> None:
        assert url == f"http://{name}"
        (root / name).write_bytes(original[name])
        assert md5(root / name) == expected

    monkeypatch.setattr(datasets, "download_url", fetch)
    assert len(datasets.svhn(svhn_root, download=True, verify=True, extra=False).train) == 3
    assert not (svhn_root / "extra_32x32.mat").exists()
    assert len(datasets.svhn(svhn_root, download=True, verify=True, extra=True).train) == 8


@pytest.mark.parametrize("split", SVHN_FILES)
def test_svhn_refuses_a_corrupt_file(svhn_root: Path, split: str) -> None:
    path = svhn_root / SVHN_FILES[split]
    expected = md5(path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x00")
    with pytest.raises(ValueError, match=rf"{path.name} is corrupt \(its md5 is not {expected}\)"):
        datasets.svhn(svhn_root, download=True, verify=True, extra=True)


# --- synthetic


def test_synthetic_is_the_same_on_every_call() -> None:
    torch.manual_seed(0)
    first = datasets.synthetic(12, 6, 8, 3)
    torch.manual_seed(1)
    second = datasets.synthetic(12, 6, 8, 3)
    for split in ("train", "test"):
        assert torch.equal(getattr(first, split).pixels, getattr(second, split).pixels)
        assert torch.equal(getattr(first, split).targets, getattr(second, split).targets)


def test_synthetic_has_the_asked_sizes_and_classes_in_turn() -> None:
    dataset = datasets.synthetic(8, 5, 9, 3)
    assert dataset.train.pixels.shape == (8, 9, 9, 3)
    assert dataset.test.pixels.shape == (5, 9, 9, 3)
    assert dataset.train.pixels.dtype == torch.uint8
    assert dataset.train.targets.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert dataset.test.targets.tolist() == [0, 1, 2, 0, 1]
    assert dataset.class_names == ("0", "1", "2")


def test_synthetic_has_no_image_twice() -> None:
    dataset = datasets.synthetic(64, 32, 8, 2)
    pictures = [image.tobytes() for part in (dataset.train, dataset.test) for image in part.pixels.numpy()]
    assert len(set(pictures)) == 96


def test_synthetic_is_learnable_by_the_nearest_class_mean() -> None:
    dataset = datasets.synthetic(512, 256, 32, 10)
    train, test = (part.pixels.double().flatten(1) for part in (dataset.train, dataset.test))
    means = torch.stack([train[dataset.train.targets == number].mean(0) for number in range(10)])
    predicted = torch.cdist(test, means).argmin(1)
    assert float((predicted == dataset.test.targets).double().mean()) > 0.95


def test_synthetic_images_can_be_batched() -> None:
    walk(datasets.synthetic(8, 5, 8, 2))
