"""The keys of a dataset, and which of them do not go together."""

import dataclasses
from collections.abc import Iterator

from sam.config.setting import setting

# Readers that find files on disk and decode them, as the run goes on or at its start.
FILE_READERS = (
    "image_folder",
    "fgvc_aircraft",
    "flowers102",
    "oxford_iiit_pet",
    "stanford_cars",
    "food101",
)


@dataclasses.dataclass
class DatasetConfig:
    """Which images, which part of them, and what is done to their labels."""

    # The name in paths and tables; free to choose for image_folder.
    name: str = setting("fashion_mnist_mini", label=True)
    # The code that reads it.
    reader: str = setting(
        "fashion_mnist_mini",
        choices=(
            "fashion_mnist_mini",
            "fashion_mnist",
            "cifar10",
            "cifar100",
            "svhn",
            "synthetic",
            *FILE_READERS,
        ),
    )
    # The folder that holds the data; part of the identity for image_folder only.
    root: str = setting("data", science=False)
    # Fetch missing files from the dataset's home, where torchvision knows one.
    download: bool = setting(True, science=False)
    # Use only so many images, classes in equal shares, the same ones in every run; null means all.
    num_train: int | None = setting(None, at_least=1)
    num_test: int | None = setting(None, at_least=1)
    # Train on nine tenths of the training images and put the rest in the place of the test images: the last
    # ones, as in the released code, or a fixed random tenth. For choosing rho.
    validation: str = setting("none", choices=("none", "last", "random"))
    # An epoch walks the training images so many times; for training sets of a few batches.
    repeats: int = setting(1, at_least=1)
    # Share of training labels drawn anew, with the run's seed.
    label_noise: float = setting(0.0, at_least=0, below=1)
    # What they are drawn from: the other classes, so that all of them are wrong, or all classes.
    label_noise_over: str = setting("other_classes", choices=("other_classes", "all_classes"))
    # Training labels from a file (.npz, .npy, .pt), such as CIFAR-10N's human ones, and which of its arrays.
    label_file: str | None = None
    label_name: str | None = None
    # Training labels predicted by an ended run (bootstrapping): its run directory.
    relabel_from: str | None = None
    # Height and width in pixels: of files and of synthetic; others are shrunk to it, to save time.
    image_size: int | None = setting(None, at_least=8, at_most=1024)
    # Files: the shorter side is resized to so many pixels before the centre crop; null means image_size.
    resize_size: int | None = setting(None, at_least=8, at_most=2048)
    interpolation: str = setting("bilinear", choices=("bilinear", "bicubic"))
    # Files: decode all at the start and keep them as bytes; else worker processes decode them as they come.
    in_memory: bool = True
    # svhn: train on its 531,131 extra images too.
    extra: bool = True
    # For synthetic only; every other dataset knows its own.
    num_classes: int | None = setting(None, at_least=2)


def dataset_clashes(dataset: DatasetConfig, batch_size: int) -> Iterator[str]:
    """Yield one message for each key of a dataset that its reader needs, or does not allow."""
    if not dataset.root:
        yield "dataset.root is empty; name a folder"
    if dataset.num_train is not None and dataset.num_train * dataset.repeats < batch_size:
        yield (
            f"dataset.num_train={dataset.num_train} fills no batch of batch_size={batch_size}; "
            "lower batch_size"
        )
    for key in ("resize_size", "interpolation", "in_memory"):
        if dataset.reader not in FILE_READERS and getattr(dataset, key) != getattr(DatasetConfig(), key):
            yield f"dataset.{key} is nothing that {dataset.reader} reads; leave it out"
    if not dataset.extra and dataset.reader != "svhn":
        yield f"dataset.extra is nothing that {dataset.reader} reads; leave it out"
    if dataset.num_classes is not None and dataset.reader != "synthetic":
        yield f"dataset.num_classes is known for {dataset.reader}; leave it null"
    needed: dict[str, tuple[str, ...]] = {"synthetic": ("num_train", "num_test", "image_size", "num_classes")}
    needed |= dict.fromkeys(FILE_READERS, ("image_size",))
    for key in needed.get(dataset.reader, ()):
        if getattr(dataset, key) is None:
            yield f"dataset.{key}=null: {dataset.reader} needs a number here"
    if dataset.validation == "last" and dataset.reader in FILE_READERS:
        yield (
            f"dataset.validation=last: the last images of {dataset.reader} are those of the last classes; "
            "use dataset.validation=random"
        )
    if dataset.resize_size is not None and dataset.resize_size < (dataset.image_size or 0):
        yield f"dataset.resize_size={dataset.resize_size} is below dataset.image_size={dataset.image_size}"
    yield from label_clashes(dataset)


def label_clashes(dataset: DatasetConfig) -> Iterator[str]:
    """Yield one message for each set of keys that want labels in two ways, or in none."""
    if dataset.label_noise_over != DatasetConfig().label_noise_over and not dataset.label_noise:
        yield f"dataset.label_noise_over={dataset.label_noise_over} needs dataset.label_noise > 0"
    sources = {
        "dataset.label_noise": dataset.label_noise,
        "dataset.label_file": dataset.label_file,
        "dataset.relabel_from": dataset.relabel_from,
    }
    if sum(map(bool, sources.values())) > 1:
        told = " and ".join(f"{key}={value}" for key, value in sources.items() if value)
        yield f"{told}: labels come from one of these; leave the others out"
    if dataset.label_name and not dataset.label_file:
        yield f"dataset.label_name={dataset.label_name} needs dataset.label_file=PATH"
