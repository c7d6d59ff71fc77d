"""Readers of the datasets that come as arrays: one function per dataset, which returns images in memory.

Datasets of image files are in file_datasets.py.

Each file is verified by checksum before it is read. A reader raises MissingDataset (a FileNotFoundError) if
a file is missing; the message says which one, where, and how to provide it. It raises ValueError if a file
is corrupt. With verify=False, a reader checks numbers, shapes and labels instead, and downloads nothing.

mean and std: for CIFAR and SVHN, those of the released code of the SAM paper. For Fashion-MNIST, its own;
that code uses those of MNIST (0.1307 / 0.3081). The two differ by a linear map that the first batch norm
removes, except at blanked pixels.
"""

import hashlib
import pathlib
from collections.abc import Callable

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import check_integrity, download_url

from sam.data.cifar_files import read_batches, read_names
from sam.data.fashion_mnist_mini import PATH as MINI_PATH
from sam.data.images import Dataset, Images
from sam.data.unverified import check_copy, readable
from sam.system.errors import MissingDataset

FASHION_MNIST_CLASSES = tuple(torchvision.datasets.FashionMNIST.classes)
FASHION_MNIST_STATISTICS = ((0.2860,), (0.3530,))
# md5 of the unpacked files; torchvision has only the md5 of the archives.
FASHION_MNIST_FILES = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
MINI_SHA256 = "b3958d0922dddff2c32fc572e332adbd4da16c5ff8db736e25cca08a907afe78"
CIFAR_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
SVHN_STATISTICS = ((0.4309, 0.4302, 0.4463), (0.1976, 0.2003, 0.1981))
# The released code of the SAM paper trains on the first 65,929 of the 73,257 images of `train`.
SVHN_NUM_VALIDATION = 7328


def fashion_mnist_mini() -> Dataset:
    """Read the dataset inside the package: 5,000 + 5,000 images, 28 x 28 x 1."""
    if hashlib.sha256(MINI_PATH.read_bytes()).hexdigest() != MINI_SHA256:
        raise ValueError(f"{MINI_PATH} is corrupt (checksum differs); restore it with git or reinstall")
    with np.load(MINI_PATH) as arrays:
        train, test = (
            Images(
                torch.from_numpy(arrays[f"{split}_images"]).unsqueeze(3),
                torch.from_numpy(arrays[f"{split}_labels"]).long(),
            )
            for split in ("train", "test")
        )
    return Dataset(train, test, FASHION_MNIST_CLASSES, *FASHION_MNIST_STATISTICS)


def fashion_mnist(root: pathlib.Path, download: bool, verify: bool) -> Dataset:
    """Read Fashion-MNIST from ROOT/FashionMNIST/raw: 60,000 + 10,000 images, 28 x 28 x 1."""
    folder = root / "FashionMNIST" / "raw"
    _ensure_files(
        "Fashion-MNIST",
        root,
        {folder / name: md5 for name, md5 in FASHION_MNIST_FILES.items()},
        download,
        verify,
        lambda: torchvision.datasets.FashionMNIST(root, download=True),
    )
    # Not torchvision's class: it prefers unverified files that an old torchvision left in `processed`.
    train, test = (_fashion_mnist_images(folder, prefix) for prefix in ("train", "t10k"))
    data = Dataset(train, test, FASHION_MNIST_CLASSES, *FASHION_MNIST_STATISTICS)
    if not verify:
        check_copy("fashion_mnist", folder, data)
    return data


def _fashion_mnist_images(folder: pathlib.Path, prefix: str) -> Images:
    images, labels = (folder / f"{prefix}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
    with readable(images):
        pixels = read_image_file(str(images)).unsqueeze(3)
    with readable(labels):
        return Images(pixels, read_label_file(str(labels)))


def cifar(name: str, root: pathlib.Path, download: bool, verify: bool) -> Dataset:
    """Read CIFAR-10 or CIFAR-100 in its python version from ROOT: 50,000 + 10,000 images, 32 x 32 x 3.

    Args:
        name: cifar10 or cifar100.
        root: The folder above cifar-10-batches-py or cifar-100-python.
        download: Whether torchvision may download missing files.
        verify: Whether the files must have the known checksums.
    """
    reader = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    folder = root / reader.base_folder
    known = [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]
    _ensure_files(
        name.upper().replace("CIFAR", "CIFAR-"),
        root,
        {folder / file: md5 for file, md5 in known},
        download,
        verify,
        lambda: reader(root, download=True),
    )
    # Not torchvision's class: it unpickles anything, so that an unverified file could run code.
    parts = [
        read_batches([folder / file for file, _ in part]) for part in (reader.train_list, reader.test_list)
    ]
    train, test = (Images(torch.from_numpy(pixels), torch.tensor(labels)) for pixels, labels in parts)
    names = read_names(folder / reader.meta["filename"], reader.meta["key"])
    data = Dataset(train, test, names, *CIFAR_STATISTICS[name])
    if not verify:
        check_copy(name, folder, data)
    return data


def svhn(root: pathlib.Path, download: bool, verify: bool, extra: bool) -> Dataset:
    """Read SVHN's cropped digits from ROOT/*_32x32.mat: 604,388 or 73,257 + 26,032 images, 32 x 32 x 3.

    The extra images come first. The last images are then those that the released code holds out.

    Args:
        root: The folder of train_32x32.mat, test_32x32.mat and, with extra, extra_32x32.mat.
        download: Whether to download missing files.
        verify: Whether the files must have the known checksums.
        extra: Whether to add the 531,131 extra images to the training images, as in the paper.
    """
    training = ("extra", "train") if extra else ("train",)
    known = torchvision.datasets.SVHN.split_list
    sources = [known[split] for split in (*training, "test")]
    _ensure_files(
        "SVHN",
        root,
        {root / file: md5 for _, file, md5 in sources},
        download,
        verify,
        lambda: [download_url(url, root, file, md5) for url, file, md5 in sources],
    )
    train, test = (_svhn_images([root / known[split][1] for split in part]) for part in (training, ("test",)))
    names = tuple(str(digit) for digit in range(10))
    data = Dataset(train, test, names, *SVHN_STATISTICS, num_validation=SVHN_NUM_VALIDATION)
    if not verify:
        check_copy("svhn with extra" if extra else "svhn", root, data)
    return data


def _svhn_images(paths: list[pathlib.Path]) -> Images:
    # With extra, one copy is 1.9 GB. Permuting the views before joining them avoids a second copy.
    parts = [_svhn_part(path) for path in paths]
    return Images(torch.cat([pixels for pixels, _ in parts]), torch.cat([labels for _, labels in parts]))


def _svhn_part(path: pathlib.Path) -> tuple[Tensor, Tensor]:
    """Return pixels [N, H, W, C] and labels [N] of one file, in which the digit 0 has the label 10."""
    from scipy.io import loadmat  # most runs do not use SVHN

    with readable(path):
        content = loadmat(path)
        labels = torch.from_numpy(content["y"].astype(np.int64)).flatten()
        return torch.from_numpy(content["X"]).permute(3, 0, 1, 2), labels.where(labels != 10, 0)


def _ensure_files(
    name: str,
    root: pathlib.Path,
    files: dict[pathlib.Path, str],
    download: bool,
    verify: bool,
    fetch: Callable[[], object],
) -> None:
    """Make sure that every file exists and has its md5; download missing files if that is allowed."""
    missing = [path for path in files if not path.exists()]
    # A download could replace the other files of an unverified copy.
    needed = "dataset.download" if verify else "dataset.verify"
    problem = f"{needed}=false"
    if missing and download and verify:
        try:
            fetch()
        except (OSError, RuntimeError) as error:
            problem = f"the download failed: {error}"
    for path, md5 in files.items():
        if not path.exists():
            raise MissingDataset(
                f"{name} is not there: {path.absolute()} is missing ({problem}). Download it "
                f"(network and {needed}=true), or put a copy there, or name the folder above "
                f"{path.relative_to(root).parts[0]} with dataset.root=..."
            )
        if verify and not check_integrity(str(path), md5):
            raise ValueError(
                f"{path.absolute()} is corrupt (its md5 is not {md5}); replace it with an intact copy, "
                "or, if it is a right copy that is packed in another way, say dataset.verify=false"
            )


def synthetic(num_train: int, num_test: int, image_size: int, num_classes: int) -> Dataset:
    """Make noisy copies of one random picture per class, C = 3; the same ones on every call.

    Args:
        num_train: Training images, at least 1.
        num_test: Test images, at least 1.
        image_size: Height and width in pixels.
        num_classes: Number of classes; image i has class i mod num_classes.
    """
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(num_classes, image_size, image_size, 3, generator=generator)

    def split(size: int) -> Images:
        targets = torch.arange(size) % num_classes
        noise = torch.randn(size, image_size, image_size, 3, generator=generator)
        pixels = (127.5 + 40 * (pictures[targets] - 0.5) + 40 * noise).clamp(0, 255)
        return Images(pixels.to(torch.uint8), targets)

    names = tuple(str(number) for number in range(num_classes))
    return Dataset(split(num_train), split(num_test), names, (0.5,) * 3, (0.2,) * 3)
