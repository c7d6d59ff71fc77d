"""Tests of sam/data/datasets.py. Nothing here uses the network: whatever would fetch is replaced.

Longer than 300 lines, since each of the five readers needs its own tiny files, written by hand.
"""

import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from sam.data import datasets
from sam.data.augmentation import Augmentation, Normalization
from sam.data.batches import TrainBatches, evaluation_batches
from sam.data.images import Dataset, Images


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def random_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def fail_to_fetch(*_: Any, **__: Any) -> None:
    raise URLError("no route to host")


def must_not_fetch(*_: Any, **__: Any) -> None:
    pytest.fail("download=False, yet a download was started")


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
    # A twelfth of the full set: the means of its images vary by 0.13, so their mean by 0.13 / 5000**0.5.
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
    """Write the tiny set, and let its checksums be the ones that are expected."""
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
    dataset = datasets.fashion_mnist(fashion_root, download=False)
    assert_is_the_fashion_set(dataset, write_fashion_mnist(fashion_root))
    assert dataset.class_names[1] == "Trouser"


def test_fashion_mnist_reads_the_verified_files_beside_leftovers_of_old_torchvision(
    fashion_root: Path,
) -> None:
    processed = fashion_root / "FashionMNIST" / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(6, 28, 28, dtype=torch.uint8), torch.zeros(6).long()), processed / name)
    dataset = datasets.fashion_mnist(fashion_root, download=False)
    assert_is_the_fashion_set(dataset, write_fashion_mnist(fashion_root))


def test_fashion_mnist_tells_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", must_not_fetch)
    message = (
        r"^Fashion-MNIST is not there: /.*/FashionMNIST/raw/train-images-idx3-ubyte is missing "
        r"\(dataset\.download=false\)\. Either let it be fetched \(network and dataset\.download=true\), "
        r"or put a copy there, or name the folder above FashionMNIST with dataset\.root=\.\.\.$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        datasets.fashion_mnist(tmp_path, download=False)


def test_fashion_mnist_tells_why_the_download_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", fail_to_fetch)
    with pytest.raises(FileNotFoundError, match=r"the download failed: <urlopen error no route to host>"):
        datasets.fashion_mnist(tmp_path, download=True)


def test_fashion_mnist_reads_what_it_fetched(fashion_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fashion_root / "FashionMNIST" / "raw"
    (folder / "t10k-labels-idx1-ubyte").unlink()

    def fetch(_: Any) -> None:
        write_fashion_mnist(fashion_root)

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", fetch)
    dataset = datasets.fashion_mnist(fashion_root, download=True)
    assert dataset.test.targets.tolist() == [5, 2, 8]


@pytest.mark.parametrize("download", [False, True])
def test_fashion_mnist_refuses_a_corrupt_file(fashion_root: Path, download: bool) -> None:
    path = fashion_root / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
    expected = md5(path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    message = (
        rf"t10k-images-idx3-ubyte is corrupt \(its md5 is not {expected}\); delete it and provide it anew$"
    )
    with pytest.raises(ValueError, match=message):
        datasets.fashion_mnist(fashion_root, download=download)


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
    """Write the tiny set, and let its checksums be the ones that are expected."""
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
    dataset = datasets.cifar(cifar_name, cifar_root, download=True)
    for split, (pixels, labels) in write_cifar(cifar_name, cifar_root).items():
        images: Images = getattr(dataset, split)
        # Each record is 1024 red, 1024 green, 1024 blue bytes, row by row.
        assert np.array_equal(images.pixels.numpy(), pixels.transpose(0, 2, 3, 1))
        assert images.targets.tolist() == labels
        assert images.pixels.dtype == torch.uint8
        assert images.targets.dtype == torch.int64
    assert dataset.class_names == tuple(f"class {number}" for number in range(10))


def walk(dataset: Dataset) -> None:
    """Take a training batch, and all test batches, from a dataset as it was read."""
    normalize = Normalization(dataset.mean, dataset.std, dataset.train.pixels.shape[2], torch.device("cpu"))
    images, _ = next(TrainBatches(dataset.train, Augmentation(), normalize, batch_size=2, seed=0).epoch(0))
    assert len(images) == 2
    num_images = sum(len(targets) for _, targets in evaluation_batches(dataset.test, normalize, 2))
    assert num_images == len(dataset.test)


def test_cifar_images_can_be_batched(cifar_name: str, cifar_root: Path) -> None:
    walk(datasets.cifar(cifar_name, cifar_root, download=True))


def test_fashion_mnist_images_can_be_batched(fashion_root: Path) -> None:
    walk(datasets.fashion_mnist(fashion_root, download=False))


def test_cifar_tells_what_is_missing(cifar_name: str, tmp_path: Path) -> None:
    title = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[cifar_name]
    folder = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[cifar_name]
    first = {"cifar10": "data_batch_1", "cifar100": "train"}[cifar_name]
    message = (
        rf"^{title} is not there: /.*/{folder}/{first} is missing \(dataset\.download=false\)\. "
        rf"Either let it be fetched \(network and dataset\.download=true\), or put a copy there, "
        rf"or name the folder above {folder} with dataset\.root=\.\.\.$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        datasets.cifar(cifar_name, tmp_path, download=False)


def test_cifar_tells_which_file_of_a_tree_is_missing(cifar_name: str, cifar_root: Path) -> None:
    meta_name = CIFAR[cifar_name][3]
    next(cifar_root.glob(f"*/{meta_name}")).unlink()
    with pytest.raises(FileNotFoundError, match=rf"/{meta_name} is missing \(dataset\.download=false\)"):
        datasets.cifar(cifar_name, cifar_root, download=False)


def test_cifar_tells_why_the_download_failed(
    cifar_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR[cifar_name][0], "download", fail_to_fetch)
    with pytest.raises(FileNotFoundError, match=r"the download failed: <urlopen error no route to host>"):
        datasets.cifar(cifar_name, tmp_path, download=True)


def test_cifar_reads_what_it_fetched(
    cifar_name: str, cifar_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next(cifar_root.glob("*/test*")).unlink()
    monkeypatch.setattr(CIFAR[cifar_name][0], "download", lambda _: write_cifar(cifar_name, cifar_root))
    assert len(datasets.cifar(cifar_name, cifar_root, download=True).test) == NUM_PER_FILE


def test_cifar_refuses_every_corrupt_file_before_it_is_unpickled(cifar_name: str, cifar_root: Path) -> None:
    for path in sorted(cifar_root.glob("*/*")):
        content = path.read_bytes()
        path.write_bytes(content[:-2])
        expected = hashlib.md5(content).hexdigest()
        with pytest.raises(ValueError, match=rf"{path.name} is corrupt \(its md5 is not {expected}\)"):
            datasets.cifar(cifar_name, cifar_root, download=True)
        path.write_bytes(content)


# --- folders of images


def write_image(path: Path, pixels: np.ndarray, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def image_root(tmp_path: Path) -> Path:
    """Write an image of 8 x 8 pixels for each split and class."""
    for seed, place in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        write_image(tmp_path / place / "a.png", random_pixels(8, 8, 3, seed=seed))
    return tmp_path


def test_image_folder_returns_what_was_written(image_root: Path) -> None:
    write_image(image_root / "train" / "cat" / "b.png", random_pixels(8, 8, 3, seed=9))
    dataset = datasets.image_folder(image_root, 8)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.targets.tolist() == [0, 0, 1]
    assert dataset.test.targets.tolist() == [0, 1]
    for images, seeds in ((dataset.train, (0, 9, 1)), (dataset.test, (2, 3))):
        expected = np.stack([random_pixels(8, 8, 3, seed=seed) for seed in seeds])
        assert np.array_equal(images.pixels.numpy(), expected)
        assert images.targets.dtype == torch.int64


def test_image_folder_images_can_be_batched(image_root: Path) -> None:
    walk(datasets.image_folder(image_root, 8))


def grey_pixels() -> tuple[np.ndarray, np.ndarray]:
    grey = random_pixels(8, 8)
    return grey, np.stack([grey] * 3, axis=2)


def transparent_pixels() -> tuple[np.ndarray, np.ndarray]:
    pixels = random_pixels(8, 8, 4)
    return pixels, pixels[..., :3]


def palette_pixels() -> tuple[Image.Image, np.ndarray]:
    indices = random_pixels(8, 8)
    palette = random_pixels(256, 3, seed=5)
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    return image, palette[indices]


@pytest.mark.parametrize(
    ("mode", "make"), [("L", grey_pixels), ("RGBA", transparent_pixels), ("P", palette_pixels)]
)
def test_image_folder_reads_other_modes_as_rgb(
    image_root: Path, mode: str, make: Callable[[], tuple[Any, np.ndarray]]
) -> None:
    written, expected = make()
    image = written if isinstance(written, Image.Image) else Image.fromarray(written)
    assert image.mode == mode
    image.save(image_root / "train" / "dog" / "a.png")
    assert np.array_equal(datasets.image_folder(image_root, 8).train.pixels[1].numpy(), expected)


def test_image_folder_keeps_the_contrast_of_16_bit_images(image_root: Path) -> None:
    grey = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(grey).save(image_root / "train" / "dog" / "a.png")
    try:
        pixels = datasets.image_folder(image_root, 8).train.pixels[1].numpy()
    except ValueError as error:
        assert "a.png" in str(error)  # refusing would be as good
    else:
        np.testing.assert_allclose(pixels[..., 0], grey / 257, atol=1)


@pytest.mark.parametrize("size", [8, 24])
@pytest.mark.parametrize("upright", [False, True])
def test_image_folder_shows_the_middle_of_an_oblong_image(image_root: Path, size: int, upright: bool) -> None:
    # Three squares in a row, red, green and blue; whatever the size, the middle one is green.
    pixels = np.zeros((16, 48, 3), dtype=np.uint8)
    for number in range(3):
        pixels[:, 16 * number : 16 * (number + 1), number] = 255
    write_image(image_root / "train" / "dog" / "a.png", pixels.swapaxes(0, 1) if upright else pixels)
    image = datasets.image_folder(image_root, size).train.pixels[1]
    assert image.shape == (size, size, 3)
    # Resizing blends a few pixels at the seams.
    seam = size // 8
    inner = image[seam:-seam, seam:-seam].flatten(0, 1)
    assert torch.equal(inner, torch.tensor([0, 255, 0], dtype=torch.uint8).expand_as(inner))


def test_image_folder_crops_an_oblong_image_pixel_by_pixel(image_root: Path) -> None:
    pixels = random_pixels(8, 14, 3)
    write_image(image_root / "train" / "dog" / "a.png", pixels)
    assert np.array_equal(datasets.image_folder(image_root, 8).train.pixels[1].numpy(), pixels[:, 3:11])


def test_image_folder_statistics_equal_numpy(image_root: Path) -> None:
    dataset = datasets.image_folder(image_root, 8)
    pixels = dataset.train.pixels.numpy().reshape(-1, 3) / 255
    # Float64 sums of a few hundred numbers below 1.
    np.testing.assert_allclose(dataset.mean, pixels.mean(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(dataset.std, pixels.std(0), rtol=0, atol=1e-12)


def test_image_folder_std_of_a_blank_channel_is_one_grey_level(image_root: Path) -> None:
    for name in ("cat", "dog"):
        pixels = random_pixels(8, 8, 3)
        pixels[..., 1] = 51
        write_image(image_root / "train" / name / "a.png", pixels)
    dataset = datasets.image_folder(image_root, 8)
    assert dataset.mean[1] == pytest.approx(0.2)
    assert dataset.std[1] == 1 / 255
    assert dataset.std[0] > 0.1


@pytest.mark.parametrize("split", ["train", "test"])
def test_image_folder_tells_which_split_is_missing(image_root: Path, split: str) -> None:
    (image_root / split).rename(image_root / "elsewhere")
    message = (
        rf"^an image folder needs /.*/{split} with one folder of images per class; "
        r"make it, or name another folder with dataset\.root=\.\.\.$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        datasets.image_folder(image_root, 8)


def test_image_folder_tells_which_class_folder_is_empty(image_root: Path) -> None:
    (image_root / "test" / "dog" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"/test: Found no valid file for the classes dog\."):
        datasets.image_folder(image_root, 8)


def test_image_folder_tells_which_split_has_no_class_folders(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(FileNotFoundError, match=r"/train: Couldn't find any class folder in"):
        datasets.image_folder(tmp_path, 8)


def test_image_folder_tells_which_classes_are_in_one_split_only(image_root: Path) -> None:
    write_image(image_root / "train" / "bird" / "a.png", random_pixels(8, 8, 3))
    write_image(image_root / "test" / "fish" / "a.png", random_pixels(8, 8, 3))
    with pytest.raises(ValueError, match=r": classes of train and test differ: bird, fish$"):
        datasets.image_folder(image_root, 8)


def truncated_png(path: Path) -> bytes:
    return path.read_bytes()[:-40]


def text_file(_: Path) -> bytes:
    return b"not a picture"


def broken_png_chunk(path: Path) -> bytes:
    content = path.read_bytes()
    return content[:50] + b"\x00" * 8 + content[58:]


def short_png_header(path: Path) -> bytes:
    content = path.read_bytes()
    return content[:11] + b"\x05" + content[12:]  # the length of the first chunk: 5 instead of 13


def huge_bitmap(_: Path) -> bytes:
    """Return the header of a bitmap of 100,000 x 100,000 pixels."""
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 100_000, 100_000, 1, 24, 0, 0, 1, 1, 0, 0)


@pytest.mark.parametrize(
    "spoil",
    [
        truncated_png,
        text_file,
        broken_png_chunk,
        short_png_header,
        huge_bitmap,
    ],
)
def test_image_folder_names_an_unreadable_file(image_root: Path, spoil: Callable[[Path], bytes]) -> None:
    path = image_root / "train" / "dog" / "b.png"
    path.write_bytes(spoil(image_root / "train" / "dog" / "a.png"))
    with pytest.raises(ValueError, match=r"/train/dog/b\.png is no readable image \(.+\); repair or delete"):
        datasets.image_folder(image_root, 8)


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
