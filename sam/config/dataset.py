"""The keys of a dataset, and which of them cannot be combined."""

import dataclasses
from collections.abc import Iterator

from sam.config.setting import setting

# Readers that decode image files, during the run or at its start.
FILE_READERS = (
    "image_folder",
    "fgvc_aircraft",
    "flowers102",
    "oxford_iiit_pet",
    "stanford_cars",
    "food101",
)
# Readers that verify the checksums of files of the user, unless dataset.verify=false.
VERIFYING_READERS = ("fashion_mnist", "cifar10", "cifar100", "svhn")
# Readers whose classes have a known similar class.
ASYMMETRIC_READERS = ("cifar10", "cifar100")


@dataclasses.dataclass
class DatasetConfig:
    """The images, the part of them that is used, and their labels."""

    # Name in paths and tables. For image_folder, any name.
    name: str = setting("fashion_mnist_mini", label=True)
    # Code that reads the dataset.
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
    # Folder of the data. Part of the identity for image_folder only.
    root: str = setting("data", science=False)
    # Download missing files, if torchvision can.
    download: bool = setting(True, science=False)
    # Refuse files of fashion_mnist, cifar10, cifar100 and svhn whose checksums are not those of the original.
    # false reads a copy that is right but packed in another way; its results are marked as not verified.
    verify: bool = True
    # Number of training images: a fixed subset with equal shares of the classes. null means all.
    num_train: int | None = setting(None, at_least=1)
    # fixed: the same training images in every run. run: each seed draws its own num_train images, the same
    # for every method, and none of those that dataset.validation=random trains on or holds out. So no result
    # depends on images on which a learning rate or rho was chosen.
    subset_seed: str = setting("fixed", choices=("fixed", "run"))
    # The same as num_train for test images, always a fixed subset.
    num_test: int | None = setting(None, at_least=1)
    # Hold out training images, and evaluate on them instead of the test images: for choosing rho. last: the
    # last images, as many as in the released code. random: a fixed random tenth.
    validation: str = setting("none", choices=("none", "last", "random"))
    # How often one epoch uses each training image. For training sets of a few batches.
    repeats: int = setting(1, at_least=1)
    # Share of training labels that are replaced. The draw depends on the seed of the run.
    label_noise: float = setting(0.0, at_least=0, below=1)
    # symmetric: the new label is drawn at random. asymmetric, for cifar10 and cifar100: it is a fixed similar
    # class. The share then counts in each class that has one: 5 of 10 classes of cifar10, all of cifar100.
    label_noise_kind: str = setting("symmetric", choices=("symmetric", "asymmetric"))
    # Symmetric noise: classes to draw from. The other classes, so that every replaced label is wrong, or all
    # classes.
    label_noise_over: str = setting("other_classes", choices=("other_classes", "all_classes"))
    # File with training labels (.npz, .npy, .pt), such as the human labels of CIFAR-10N.
    label_file: str | None = None
    # Name of the array in label_file.
    label_name: str | None = None
    # Run directory of an ended run. Its predictions are the training labels (bootstrapping).
    relabel_from: str | None = None
    # Height and width in pixels. Image files and synthetic need it. Other images are shrunk to it, which
    # saves time.
    image_size: int | None = setting(None, at_least=8, at_most=1024)
    # Image files: the shorter side is resized to this number of pixels before the centre crop. null means
    # image_size.
    resize_size: int | None = setting(None, at_least=8, at_most=2048)
    # Image files: interpolation of the resize.
    interpolation: str = setting("bilinear", choices=("bilinear", "bicubic"))
    # Image files: true decodes all images at the start and keeps them in memory. false decodes them in worker
    # processes, when they are needed.
    in_memory: bool = True
    # svhn: also train on its 531,131 extra images.
    extra: bool = True
    # synthetic: number of classes. For every other dataset, it is known.
    num_classes: int | None = setting(None, at_least=2)


def dataset_clashes(dataset: DatasetConfig, batch_size: int) -> Iterator[str]:
    """Yield one message for each key that the reader of a dataset lacks or does not allow."""
    if not dataset.root:
        yield "dataset.root is empty; name a folder"
    if dataset.num_train is not None and dataset.num_train * dataset.repeats < batch_size:
        yield (
            f"dataset.num_train={dataset.num_train} fills no batch of batch_size={batch_size}; "
            "lower batch_size"
        )
    for key in ("resize_size", "interpolation", "in_memory"):
        if dataset.reader not in FILE_READERS and getattr(dataset, key) != getattr(DatasetConfig(), key):
            yield f"dataset.{key} does not apply to {dataset.reader}; leave it out"
    if not dataset.extra and dataset.reader != "svhn":
        yield f"dataset.extra does not apply to {dataset.reader}; leave it out"
    if not dataset.verify and dataset.reader not in VERIFYING_READERS:
        yield f"dataset.verify does not apply to {dataset.reader}; leave it out"
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
    if dataset.subset_seed == "run":
        yield from _subset_clashes(dataset)
    yield from label_clashes(dataset)


def _subset_clashes(dataset: DatasetConfig) -> Iterator[str]:
    if dataset.reader == "synthetic":
        yield "dataset.subset_seed=run does not apply to synthetic; leave it out"
    elif dataset.num_train is None:
        yield (
            "dataset.subset_seed=run draws a part of the training images, and dataset.num_train=null means "
            "all; set dataset.num_train to a number"
        )
    if dataset.validation != "none":
        yield (
            f"dataset.subset_seed=run: dataset.validation={dataset.validation} is for tuning, which uses the "
            "fixed subset; leave one of the two keys out"
        )


def label_clashes(dataset: DatasetConfig) -> Iterator[str]:
    """Yield one message for each set of keys that give labels from two sources, or from no source."""
    for key in ("label_noise_over", "label_noise_kind"):
        if getattr(dataset, key) != getattr(DatasetConfig(), key) and not dataset.label_noise:
            yield (
                f"dataset.{key}={getattr(dataset, key)} needs dataset.label_noise > 0; set it, or leave "
                f"dataset.{key} out"
            )
    if dataset.label_noise_kind == "asymmetric":
        yield from _asymmetric_clashes(dataset)
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
    if dataset.label_file and not dataset.verify:
        yield (
            f"dataset.label_file={dataset.label_file} has labels in the order of the original images, which "
            "dataset.verify=false does not check: the noise could be right per class and wrong per image; "
            "use verified files, or dataset.label_noise"
        )


def _asymmetric_clashes(dataset: DatasetConfig) -> Iterator[str]:
    if dataset.reader not in ASYMMETRIC_READERS:
        yield (
            f"dataset.label_noise_kind=asymmetric is defined for {' and '.join(ASYMMETRIC_READERS)}, not for "
            f"{dataset.reader}; use dataset.label_noise_kind=symmetric, or write your labels to a "
            "dataset.label_file"
        )
    if dataset.label_noise_over != DatasetConfig().label_noise_over:
        yield (
            f"dataset.label_noise_over={dataset.label_noise_over} applies only to "
            "dataset.label_noise_kind=symmetric; leave it out"
        )
