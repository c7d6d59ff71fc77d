"""Tests of scripts/figure.py."""

import importlib.util
from pathlib import Path

import pytest
import torch
from PIL import Image

from sam.data.augmentation import Augmentation, Normalization
from sam.data.images import Images
from tests.conftest import TINY

SCRIPT = Path(__file__).parents[2] / "scripts" / "figure.py"
SPEC = importlib.util.spec_from_file_location("figure", SCRIPT)
figure = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(figure)


@pytest.fixture
def run(run_main):
    """Run the script as run_main does."""
    return lambda *arguments: run_main(figure.main, str(SCRIPT), *map(str, arguments))


def test_figure_batch_writes_a_readable_png_in_the_current_folder(run, tmp_path: Path) -> None:
    code, out, error = run("batch", *TINY, "augmentation=autoaugment_cutout")
    assert (code, out, error) == (0, "wrote batch-synthetic-autoaugment_cutout.png\n", "")
    [path] = tmp_path.iterdir()
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        # 16 images in 8 columns, of 1.4 inches at 150 dots an inch.
        assert picture.width == 1680
        # Text alone has at most 256 greys.
        assert len(picture.convert("RGB").getcolors(2**24)) > 256


def test_figure_batch_with_out_writes_there_whatever_its_name(run, tmp_path: Path) -> None:
    code, out, _ = run("batch", *TINY, "augmentation=mixup", "--out", tmp_path / "sheet.jpg")
    assert (code, out) == (0, f"wrote {tmp_path / 'sheet.jpg'}\n")
    assert (tmp_path / "sheet.jpg").read_bytes().startswith(b"\x89PNG")


def test_figure_batch_repeats_itself(run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert run("batch", *TINY, "augmentation=autoaugment", "--out", name)[0] == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["augmentation.flop=true"], "error: augmentation.flop: there is no such key; did you mean"),
        (["augmentation=cutoff"], "error: augmentation=cutoff: there is no such choice; allowed is one of"),
        (["augmentation.crop_padding=-1"], "error: augmentation.crop_padding=-1: allowed is a number >= 0"),
        (
            ["--out", "nowhere/sheet.png"],
            "error: --out=nowhere/sheet.png: No such file or directory; name a file",
        ),
    ],
)
def test_figure_of_a_mistake_exits_with_2(run, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, out, error = run("batch", *TINY, *arguments)
    assert (code, out) == (2, "")
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("channels", [1, 3])
def test_figure_pictures_are_the_pixels_before_normalisation(channels: int) -> None:
    pixels = torch.randint(0, 256, (5, 6, 7, channels), dtype=torch.uint8)
    normalize = Normalization(
        (0.49, 0.48, 0.45)[:channels], (0.25, 0.24, 0.26)[:channels], 7, torch.device("cpu")
    )
    images = Images(pixels, torch.zeros(5, dtype=torch.long))
    batch = Augmentation()(images, torch.arange(5), torch.rand(5, 5), normalize)
    shown = figure.pictures(batch, normalize)
    torch.testing.assert_close(shown, (pixels / 255).expand(5, 6, 7, 3), rtol=0, atol=1e-6)
    assert 0 <= shown.min() <= shown.max() <= 1


def test_figure_captions_name_the_class_of_each_image() -> None:
    assert figure.captions(torch.tensor([2, 0]), ("cat", "dog", "frog")) == ["frog", "cat"]


def test_figure_captions_of_soft_targets_name_both_classes_with_their_shares() -> None:
    targets = torch.tensor([[0.25, 0, 0.75], [0, 1, 0], [0.5, 0.5, 0]])
    captions = figure.captions(targets, ("cat", "dog", "frog"))
    assert captions == ["0.75 frog\n0.25 cat", "1.00 dog", "0.50 dog\n0.50 cat"]


@pytest.mark.parametrize("num_images", [1, 7, 8, 9, 64])
def test_figure_sheet_shows_every_image_with_its_label(num_images: int) -> None:
    images = torch.rand(num_images, 4, 4, 3)
    labels = [f"label {number}" for number in range(num_images)]
    axes = figure.sheet(images, labels, "title").axes
    shown = [axis for axis in axes if axis.images]
    assert [axis.get_title() for axis in shown] == labels
    for axis, image in zip(shown, images, strict=True):
        assert (axis.images[0].get_array() == image.numpy()).all()
    assert len(axes) - len(shown) < 8
