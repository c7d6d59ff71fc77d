"""Tests of sam/data/file_datasets.py. Downloads are replaced, so no test uses the network.

Longer than 300 lines, since each dataset needs a tiny copy of its layout. All pictures are written in a
lossless format, whatever the ending of their file name.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
import yaml
from PIL import Image

from sam.data import file_datasets
from sam.data.image_files import ImageFiles
from sam.data.images import Dataset, Images

SQUARE = {"image_size": 8, "resize_size": 8, "interpolation": "bilinear"}


def random_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")


def pixels_in(paths: list[Path]) -> np.ndarray:
    return np.stack([np.array(Image.open(path)) for path in paths])


# --- folders of images


@pytest.fixture
def image_root(tmp_path: Path) -> Path:
    """Write an image of 8 x 8 pixels for each split and class."""
    for seed, place in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        write_image(tmp_path / place / "a.png", random_pixels(8, 8, 3, seed=seed))
    return tmp_path


def in_memory(root: Path) -> Dataset:
    return file_datasets.image_folder(root, **SQUARE, in_memory=True)


def on_disk(root: Path) -> Dataset:
    return file_datasets.image_folder(root, **SQUARE, in_memory=False)


def test_image_folder_in_memory_returns_what_was_written(image_root: Path) -> None:
    write_image(image_root / "train" / "cat" / "b.png", random_pixels(8, 8, 3, seed=9))
    dataset = in_memory(image_root)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.targets.tolist() == [0, 0, 1]
    assert dataset.test.targets.tolist() == [0, 1]
    for images, seeds in ((dataset.train, (0, 9, 1)), (dataset.test, (2, 3))):
        assert isinstance(images, Images)
        expected = np.stack([random_pixels(8, 8, 3, seed=seed) for seed in seeds])
        assert np.array_equal(images.pixels.numpy(), expected)
        assert images.targets.dtype == torch.int64


def test_image_folder_on_disk_lists_the_same_images(image_root: Path) -> None:
    write_image(image_root / "train" / "cat" / "b.png", random_pixels(8, 8, 3, seed=9))
    listed, decoded = on_disk(image_root), in_memory(image_root)
    assert listed.class_names == decoded.class_names
    for files, images in ((listed.train, decoded.train), (listed.test, decoded.test)):
        assert isinstance(files, ImageFiles)
        assert isinstance(images, Images)
        assert torch.equal(files.decoded(), images.pixels)
        assert torch.equal(files.targets, images.targets)
        assert files.targets.dtype == torch.int64


@pytest.mark.parametrize("kept_in_memory", [False, True])
def test_image_folder_passes_on_how_images_are_prepared(image_root: Path, kept_in_memory: bool) -> None:
    how = {"image_size": 4, "resize_size": 6, "interpolation": "bicubic"}
    dataset = file_datasets.image_folder(image_root, **how, in_memory=kept_in_memory)
    expected = ImageFiles((str(image_root / "test" / "cat" / "a.png"),), torch.zeros(1), **how)
    if isinstance(dataset.test, Images):
        assert torch.equal(dataset.test.pixels[:1], expected.decoded())
    else:
        assert (dataset.test.image_size, dataset.test.resize_size) == (4, 6)
        assert dataset.test.interpolation == "bicubic"


def test_image_folder_on_disk_opens_no_image(image_root: Path) -> None:
    (image_root / "train" / "dog" / "a.png").write_bytes(b"not a picture")
    assert len(on_disk(image_root).train) == 2


def test_image_folder_in_memory_names_an_unreadable_file(image_root: Path) -> None:
    (image_root / "train" / "dog" / "a.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"/train/dog/a\.png is not a readable image \(.+\); repair or"):
        in_memory(image_root)


def test_image_folder_in_memory_has_the_statistics_of_numpy(image_root: Path) -> None:
    dataset = in_memory(image_root)
    pixels = pixels_in([image_root / "train" / name / "a.png" for name in ("cat", "dog")]) / 255
    # Float64 sums of a few hundred numbers below 1.
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 1, 2)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(dataset.std, pixels.std((0, 1, 2)), rtol=0, atol=1e-12)


def test_image_folder_std_of_a_blank_channel_is_one_grey_level(image_root: Path) -> None:
    for name in ("cat", "dog"):
        pixels = random_pixels(8, 8, 3)
        pixels[..., 1] = 51
        write_image(image_root / "train" / name / "a.png", pixels)
    dataset = in_memory(image_root)
    assert dataset.mean[1] == pytest.approx(0.2)
    assert dataset.std[1] == 1 / 255
    assert dataset.std[0] > 0.1


def test_image_folder_on_disk_has_the_statistics_of_imagenet(image_root: Path) -> None:
    dataset = on_disk(image_root)
    assert dataset.mean == (0.485, 0.456, 0.406)
    assert dataset.std == (0.229, 0.224, 0.225)


def test_image_folder_reads_val_where_there_is_no_test(image_root: Path) -> None:
    expected = in_memory(image_root).test
    (image_root / "test").rename(image_root / "val")
    dataset = in_memory(image_root)
    assert isinstance(dataset.test, Images)
    assert isinstance(expected, Images)
    assert torch.equal(dataset.test.pixels, expected.pixels)


def test_image_folder_prefers_test_to_val(image_root: Path) -> None:
    for name in ("cat", "dog"):
        write_image(image_root / "val" / name / "b.png", random_pixels(8, 8, 3))
    test = on_disk(image_root).test
    assert isinstance(test, ImageFiles)
    assert [Path(path).parts[-3] for path in test.paths] == ["test", "test"]


@pytest.mark.parametrize(("split", "places"), [("train", "/.*/train"), ("test", "/.*/test or /.*/val")])
def test_image_folder_tells_which_split_is_missing(image_root: Path, split: str, places: str) -> None:
    (image_root / split).rename(image_root / "elsewhere")
    message = (
        rf"^an image folder needs {places} with one folder of images per class; "
        r"make it, or name another folder with dataset\.root=\.\.\.$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        on_disk(image_root)


def test_image_folder_tells_which_class_folder_is_empty(image_root: Path) -> None:
    (image_root / "test" / "dog" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"/test: Found no valid file for the classes dog\."):
        on_disk(image_root)


def test_image_folder_tells_which_split_has_no_class_folders(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(FileNotFoundError, match=r"/train: Couldn't find any class folder in"):
        on_disk(tmp_path)


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_image_folder_tells_which_classes_are_in_one_split_only(image_root: Path, held_out: str) -> None:
    (image_root / "test").rename(image_root / held_out)
    write_image(image_root / "train" / "bird" / "a.png", random_pixels(8, 8, 3))
    write_image(image_root / held_out / "fish" / "a.png", random_pixels(8, 8, 3))
    with pytest.raises(ValueError, match=rf": classes of train and {held_out} differ: bird, fish$"):
        on_disk(image_root)


# --- datasets of torchvision


class Written(NamedTuple):
    """The images of a tiny dataset in order: (path below its folder, class) of each."""

    train: list[tuple[str, int]]
    test: list[tuple[str, int]]
    class_names: list[str]


def write_aircraft(folder: Path) -> Written:
    classes = ["707-320", "Boeing 717", "A300B4"]
    splits = {"trainval": [("0000001", 1), ("0000005", 0), ("0000003", 2)], "test": [("0000002", 2)]}
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "variants.txt").write_text("".join(f"{name}\n" for name in classes))
    for split, images in splits.items():
        lines = "".join(f"{name} {classes[number]}\n" for name, number in images)
        (folder / "data" / f"images_variant_{split}.txt").write_text(lines)
    train, test = (
        [(f"data/images/{name}.jpg", number) for name, number in splits[split]]
        for split in ("trainval", "test")
    )
    return Written(train, test, classes)


def write_flowers(folder: Path) -> Written:
    labels = [3, 1, 102, 7, 7, 2]
    splits = {"trnid": [2, 6], "valid": [3, 1], "tstid": [5, 4]}
    folder.mkdir()
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    ids = {split: np.array([images], dtype=np.uint16) for split, images in splits.items()}
    scipy.io.savemat(folder / "setid.mat", ids)

    def part(*names: str) -> list[tuple[str, int]]:
        images = [image for name in names for image in splits[name]]
        return [(f"jpg/image_{image:05d}.jpg", labels[image - 1] - 1) for image in images]

    return Written(part("trnid", "valid"), part("tstid"), torchvision.datasets.Flowers102.classes)


def write_pets(folder: Path) -> Written:
    splits = {
        "trainval": [("Abyssinian_12", 1), ("great_pyrenees_3", 3), ("american_bulldog_7", 2)],
        "test": [("great_pyrenees_1", 3), ("Abyssinian_9", 1), ("american_bulldog_100", 2)],
    }
    (folder / "annotations").mkdir(parents=True)
    for split, images in splits.items():
        lines = "".join(f"{name} {number} 1 1\n" for name, number in images)
        (folder / "annotations" / f"{split}.txt").write_text(lines)
    train, test = (
        [(f"images/{name}.jpg", number - 1) for name, number in splits[split]]
        for split in ("trainval", "test")
    )
    return Written(train, test, ["Abyssinian", "American Bulldog", "Great Pyrenees"])


def write_cars(folder: Path) -> Written:
    splits = {"train": [("00001.jpg", 2), ("00002.jpg", 1)], "test": [("00001.jpg", 1), ("00002.jpg", 2)]}
    lists = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    (folder / "devkit").mkdir(parents=True)
    for split, images in splits.items():
        rows = [(39, number, name) for name, number in images]
        fields = [("bbox_x1", object), ("class", object), ("fname", object)]
        scipy.io.savemat(folder / lists[split], {"annotations": np.array([rows], dtype=fields)})
    classes = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]
    names = {"class_names": np.array([classes], dtype=object)}
    scipy.io.savemat(folder / "devkit" / "cars_meta.mat", names)
    train, test = (
        [(f"cars_{split}/{name}", number - 1) for name, number in images] for split, images in splits.items()
    )
    return Written(train, test, classes)


def write_food(folder: Path) -> Written:
    splits = {
        "train": {"waffles": ["waffles/9", "waffles/2"], "apple_pie": ["apple_pie/5"]},
        "test": {"waffles": ["waffles/1"], "apple_pie": ["apple_pie/4", "apple_pie/3"]},
    }
    classes = ["apple_pie", "waffles"]
    (folder / "meta").mkdir(parents=True)
    for split, images in splits.items():
        (folder / "meta" / f"{split}.json").write_text(json.dumps(images))
    train, test = (
        [(f"images/{path}.jpg", classes.index(name)) for name, paths in images.items() for path in paths]
        for images in splits.values()
    )
    return Written(train, test, classes)


class Known(NamedTuple):
    """A dataset of torchvision, and the function that writes a tiny copy of it."""

    folder: str
    write: Callable[[Path], Written]
    reader: Any
    # torchvision's splits that make up the training images.
    training: tuple[str, ...]
    module: Any
    title: str


MODULES = torchvision.datasets
KNOWN = {
    "fgvc_aircraft": Known(
        "fgvc-aircraft-2013b",
        write_aircraft,
        MODULES.FGVCAircraft,
        ("trainval",),
        MODULES.fgvc_aircraft,
        "FGVC-Aircraft",
    ),
    "flowers102": Known(
        "flowers-102",
        write_flowers,
        MODULES.Flowers102,
        ("train", "val"),
        MODULES.flowers102,
        "Oxford Flowers-102",
    ),
    "oxford_iiit_pet": Known(
        "oxford-iiit-pet",
        write_pets,
        MODULES.OxfordIIITPet,
        ("trainval",),
        MODULES.oxford_iiit_pet,
        "Oxford-IIIT Pet",
    ),
    "stanford_cars": Known(
        "stanford_cars",
        write_cars,
        MODULES.StanfordCars,
        ("train",),
        MODULES.stanford_cars,
        "Stanford Cars",
    ),
    "food101": Known("food-101", write_food, MODULES.Food101, ("train",), MODULES.food101, "Food-101"),
}
FETCHED = [name for name in KNOWN if name != "stanford_cars"]


def write_known(name: str, root: Path) -> Written:
    """Write a tiny dataset; the pixels of an image depend on its position in the lists."""
    folder = root / KNOWN[name].folder
    written = KNOWN[name].write(folder)
    for seed, (path, _) in enumerate(written.train + written.test):
        write_image(folder / path, random_pixels(8, 8, 3, seed=seed))
    return written


def replace_fetching(monkeypatch: pytest.MonkeyPatch, name: str, fetch: Callable[..., None]) -> None:
    for function in ("download_and_extract_archive", "download_url"):
        monkeypatch.setattr(KNOWN[name].module, function, fetch, raising=False)


def must_not_fetch(*_: Any, **__: Any) -> None:
    pytest.fail("a download was started")


@pytest.fixture(autouse=True)
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid downloads, and accept any Flowers-102 list that exists, whatever its checksum."""
    for name in KNOWN:
        replace_fetching(monkeypatch, name, must_not_fetch)
    monkeypatch.setattr(KNOWN["flowers102"].module, "check_integrity", lambda path, md5: Path(path).exists())


def read(name: str, root: Path, *, download: bool = True, in_memory: bool = False) -> Dataset:
    return file_datasets.torchvision_files(name, root, download=download, **SQUARE, in_memory=in_memory)


@pytest.mark.parametrize("name", KNOWN)
def test_torchvision_files_lists_what_was_written(name: str, tmp_path: Path) -> None:
    written = write_known(name, tmp_path)
    dataset = read(name, tmp_path)
    for split, samples in ((dataset.train, written.train), (dataset.test, written.test)):
        assert isinstance(split, ImageFiles)
        assert split.paths == tuple(str(tmp_path / KNOWN[name].folder / path) for path, _ in samples)
        assert split.targets.tolist() == [target for _, target in samples]
        assert split.targets.dtype == torch.int64
        assert split.shape == (8, 8, 3)
    assert dataset.class_names == tuple(written.class_names)
    assert dataset.mean == (0.485, 0.456, 0.406)
    assert dataset.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize("name", KNOWN)
def test_torchvision_files_in_memory_equal_what_torchvision_decodes(name: str, tmp_path: Path) -> None:
    write_known(name, tmp_path)
    dataset = read(name, tmp_path, in_memory=True)
    reader, training = KNOWN[name].reader, KNOWN[name].training
    for images, splits in ((dataset.train, training), (dataset.test, ("test",))):
        assert isinstance(images, Images)
        items = [item for split in splits for item in list_of(reader(tmp_path, split=split))]
        assert np.array_equal(images.pixels.numpy(), np.stack([np.array(picture) for picture, _ in items]))
        assert images.targets.tolist() == [target for _, target in items]
    assert isinstance(dataset.train, Images)
    expected = dataset.train.pixels.double().div(255).mean((0, 1, 2))
    np.testing.assert_allclose(dataset.mean, expected.numpy(), rtol=0, atol=1e-12)


def list_of(images: Any) -> list[tuple[Image.Image, int]]:
    return [images[index] for index in range(len(images))]


@pytest.mark.parametrize("name", FETCHED)
def test_torchvision_files_tell_what_is_missing(name: str, tmp_path: Path) -> None:
    folder, title = KNOWN[name].folder, KNOWN[name].title
    message = (
        rf"^{title} is not there: /.*/{folder} is missing or incomplete \(dataset\.download=false: .+\)\. "
        r"Download it \(network and dataset\.download=true\), or put a copy there, "
        rf"or name the folder above {folder} with dataset\.root=\.\.\.$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        read(name, tmp_path, download=False)


@pytest.mark.parametrize("download", [False, True])
def test_torchvision_files_tell_how_to_provide_stanford_cars(tmp_path: Path, download: bool) -> None:
    problem = r"the download failed: The original URL is broken" if download else r"dataset\.download=false: "
    message = (
        rf"^Stanford Cars is not there: /.*/stanford_cars is missing or incomplete \({problem}.+\)\. "
        r"Its website no longer exists: copy cars_train/\*\.jpg, cars_test/\*\.jpg, "
        r"cars_test_annos_withlabels\.mat, devkit/cars_train_annos\.mat and devkit/cars_meta\.mat there "
        r"\(.+\), or name the folder above stanford_cars with dataset\.root=\.\.\.$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        read("stanford_cars", tmp_path, download=download)


@pytest.mark.parametrize("name", FETCHED)
def test_torchvision_files_tell_why_the_download_failed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_fetch(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    replace_fetching(monkeypatch, name, fail_to_fetch)
    message = r"\(the download failed: <urlopen error no route to host>\)\. Download it"
    with pytest.raises(FileNotFoundError, match=message):
        read(name, tmp_path)


@pytest.mark.parametrize("name", FETCHED)
def test_torchvision_files_read_what_was_fetched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        if not (tmp_path / KNOWN[name].folder).exists():
            write_known(name, tmp_path)

    replace_fetching(monkeypatch, name, fetch)
    assert len(read(name, tmp_path).test) > 0


@pytest.mark.parametrize("name", KNOWN)
def test_torchvision_files_tell_which_images_are_missing(name: str, tmp_path: Path) -> None:
    written = write_known(name, tmp_path)
    folder = tmp_path / KNOWN[name].folder
    gone = [written.train[1][0], written.test[0][0]]
    for path in gone:
        (folder / path).unlink()
    message = (
        rf"^{KNOWN[name].title} is incomplete, images missing: 2, the first {folder / gone[0]}; "
        rf"delete {folder} and its archive, and provide the dataset again$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        read(name, tmp_path)


LISTS = {
    "fgvc_aircraft": "data/images_variant_test.txt",
    "flowers102": "setid.mat",
    "oxford_iiit_pet": "annotations/test.txt",
    "stanford_cars": "devkit/cars_meta.mat",
    "food101": "meta/test.json",
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"{broken")])
def test_torchvision_files_refuse_a_broken_list(
    name: str, spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    write_known(name, tmp_path)
    spoil(tmp_path / KNOWN[name].folder / LISTS[name])
    with pytest.raises(FileNotFoundError, match=rf"^{KNOWN[name].title} is not there: .* missing or incompl"):
        read(name, tmp_path, download=False)


@pytest.mark.parametrize("name", KNOWN)
def test_torchvision_files_name_an_unreadable_image(name: str, tmp_path: Path) -> None:
    written = write_known(name, tmp_path)
    path = tmp_path / KNOWN[name].folder / written.test[0][0]
    path.write_bytes(b"not a picture")
    assert len(read(name, tmp_path).test) == len(written.test)
    with pytest.raises(ValueError, match=rf"^{path} is not a readable image"):
        read(name, tmp_path, in_memory=True)


# --- the protocol of fine-tuning

# The number of training images that the authors print, and of steps that the config's comment states.
STEPS = {
    "fgvc_aircraft": (6_667, 4_940),
    "flowers102": (2_040, 5_020),
    "oxford_iiit_pet": (3_680, 5_020),
    "stanford_cars": (8_144, 4_920),
    "food101": (75_750, 4_998),
    "birdsnap": (47_386, 4_995),
}


@pytest.mark.parametrize("name", STEPS)
def test_config_of_a_fine_tuning_set_makes_about_5000_steps(name: str) -> None:
    path = Path(__file__).resolve().parents[2] / "configs" / "dataset" / f"{name}.yaml"
    config = yaml.safe_load(path.read_text())
    num_train, steps = STEPS[name]
    steps_per_epoch = config["dataset"]["repeats"] * num_train // config["batch_size"]
    assert config["epochs"] * steps_per_epoch == steps == pytest.approx(5000, rel=0.02)
    assert f"{steps:,} steps" in path.read_text()
