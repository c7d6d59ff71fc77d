"""Tests of sam/data/image_files.py. All pictures are lossless, whatever the ending of their file name."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sam.data.image_files import ImageError, ImageFiles


def random_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def files_of(
    *pictures: Image.Image | np.ndarray,
    folder: Path,
    image_size: int = 8,
    resize_size: int = 8,
    interpolation: str = "bilinear",
) -> ImageFiles:
    """Write pictures and return them as files whose targets are 10, 11, ..."""
    paths = tuple(str(folder / f"{number}.png") for number in range(len(pictures)))
    for path, picture in zip(paths, pictures):
        (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path)
    return ImageFiles(
        paths,
        10 + torch.arange(len(pictures)),
        image_size=image_size,
        resize_size=resize_size,
        interpolation=interpolation,
    )


@pytest.fixture
def three(tmp_path: Path) -> ImageFiles:
    return files_of(*(random_pixels(8, 8, 3, seed=seed) for seed in range(3)), folder=tmp_path)


def test_image_files_take_keeps_paths_with_their_targets(three: ImageFiles) -> None:
    taken = three.take(torch.tensor([2, 0, 2]))
    assert len(taken) == 3
    assert taken.paths == (three.paths[2], three.paths[0], three.paths[2])
    assert taken.targets.tolist() == [12, 10, 12]
    assert taken.clean_targets is None
    assert (taken.image_size, taken.resize_size, taken.interpolation) == (8, 8, "bilinear")


def test_image_files_take_keeps_clean_targets_too(three: ImageFiles) -> None:
    spoiled = ImageFiles(
        three.paths,
        three.targets,
        torch.tensor([5, 6, 7]),
        image_size=8,
        resize_size=8,
        interpolation="bilinear",
    )
    clean = spoiled.take(torch.tensor([2, 0])).clean_targets
    assert clean is not None
    assert clean.tolist() == [7, 5]


def test_image_files_stay_where_they_are(three: ImageFiles) -> None:
    assert three.to(torch.device("meta")) is three


def test_image_files_shape_is_that_of_a_prepared_image(tmp_path: Path) -> None:
    assert files_of(folder=tmp_path, image_size=24, resize_size=32).shape == (24, 24, 3)


def test_image_files_picture_is_the_whole_image_as_written(tmp_path: Path) -> None:
    pictures = [random_pixels(5, 9, 3, seed=1), random_pixels(12, 4, 3, seed=2)]
    files = files_of(*pictures, folder=tmp_path)
    for index, expected in enumerate(pictures):
        assert np.array_equal(np.array(files.picture(index)), expected)


def grey() -> tuple[Image.Image, np.ndarray]:
    pixels = random_pixels(8, 8)
    return Image.fromarray(pixels), np.stack([pixels] * 3, axis=2)


def transparent() -> tuple[Image.Image, np.ndarray]:
    pixels = random_pixels(8, 8, 4)
    return Image.fromarray(pixels), pixels[..., :3]


def palette() -> tuple[Image.Image, np.ndarray]:
    indices = random_pixels(8, 8)
    colours = random_pixels(256, 3, seed=5)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    return image, colours[indices]


@pytest.mark.parametrize(("mode", "make"), [("L", grey), ("RGBA", transparent), ("P", palette)])
def test_image_files_read_other_modes_as_rgb(
    tmp_path: Path, mode: str, make: Callable[[], tuple[Image.Image, np.ndarray]]
) -> None:
    image, expected = make()
    assert image.mode == mode
    picture = files_of(image, folder=tmp_path).picture(0)
    assert picture.mode == "RGB"
    assert np.array_equal(np.array(picture), expected)


def test_image_files_refuse_16_bits_which_pil_would_clip(tmp_path: Path) -> None:
    files = files_of(np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16), folder=tmp_path)
    message = (
        r"/0\.png is not a readable image \(it has more than 8 bits per channel, which would be "
        r"clipped to white\); repair or delete it$"
    )
    with pytest.raises(ImageError, match=message):
        files.picture(0)


def test_image_files_refuse_floats(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(tmp_path / "a.tiff")
    targets = torch.zeros(1, dtype=torch.long)
    files = ImageFiles(
        (str(tmp_path / "a.tiff"),), targets, image_size=8, resize_size=8, interpolation="bilinear"
    )
    with pytest.raises(ImageError, match=r"a\.tiff is not a readable image \(it has more than 8 bits"):
        files.picture(0)


def missing(path: Path) -> None:
    path.unlink()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def text(path: Path) -> None:
    path.write_bytes(b"not a picture")


def broken_chunk(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:50] + b"\x00" * 8 + content[58:])


def short_header(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:11] + b"\x05" + content[12:])  # the length of the first chunk: 5 instead of 13


def huge_bitmap(path: Path) -> None:
    """Write the header of a bitmap of 100,000 x 100,000 pixels."""
    header = struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 100_000, 100_000, 1, 24, 0, 0, 1, 1, 0, 0)
    path.write_bytes(b"BM" + header)


@pytest.mark.parametrize("spoil", [missing, truncated, text, broken_chunk, short_header, huge_bitmap])
@pytest.mark.parametrize("read", [lambda files: files.picture(1), ImageFiles.decoded])
def test_image_files_name_an_unreadable_file(
    three: ImageFiles, spoil: Callable[[Path], None], read: Callable[[ImageFiles], Any]
) -> None:
    spoil(Path(three.paths[1]))
    with pytest.raises(ImageError, match=r"/1\.png is not a readable image \(.+\); repair or delete it$"):
        read(three)


def resized_by_pil(pixels: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize to (height, width) with PIL only."""
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    return np.array(Image.fromarray(pixels).resize(size[::-1], method))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_image_files_decoded_equals_pil_and_slices(tmp_path: Path, interpolation: str) -> None:
    lying, upright = random_pixels(20, 31, 3, seed=1), random_pixels(30, 18, 3, seed=2)
    files = files_of(
        lying, upright, folder=tmp_path, image_size=8, resize_size=12, interpolation=interpolation
    )
    # The shorter side becomes 12, the longer 12 * 31 / 20 or 12 * 30 / 18. Then the centre 8 are cropped.
    expected = [
        resized_by_pil(lying, (12, 18), interpolation)[2:10, 5:13],
        resized_by_pil(upright, (20, 12), interpolation)[6:14, 2:10],
    ]
    assert files.decoded().dtype == torch.uint8
    assert np.array_equal(files.decoded().numpy(), np.stack(expected))


def test_image_files_decoded_keeps_pixels_that_need_no_resize(tmp_path: Path) -> None:
    pictures = [random_pixels(8, 14, 3, seed=1), random_pixels(8, 8, 3, seed=2)]
    expected = np.stack([pictures[0][:, 3:11], pictures[1]])
    assert np.array_equal(files_of(*pictures, folder=tmp_path).decoded().numpy(), expected)


@pytest.mark.parametrize("size", [8, 24])
@pytest.mark.parametrize("upright", [False, True])
def test_image_files_decoded_shows_the_middle_of_an_oblong_image(
    tmp_path: Path, size: int, upright: bool
) -> None:
    # Three squares in a row: red, green and blue. The one in the middle stays green at any size.
    pixels = np.zeros((16, 48, 3), dtype=np.uint8)
    for number in range(3):
        pixels[:, 16 * number : 16 * (number + 1), number] = 255
    picture = np.ascontiguousarray(pixels.swapaxes(0, 1)) if upright else pixels
    image = files_of(picture, folder=tmp_path, image_size=size, resize_size=size).decoded()[0]
    # Resizing blends a few pixels at the borders of the squares.
    seam = size // 8
    inner = image[seam:-seam, seam:-seam].flatten(0, 1)
    assert torch.equal(inner, torch.tensor([0, 255, 0], dtype=torch.uint8).expand_as(inner))


def test_image_files_decoded_keeps_the_order(tmp_path: Path) -> None:
    pictures = [np.full((8, 8, 3), number, dtype=np.uint8) for number in range(40)]
    decoded = files_of(*pictures, folder=tmp_path).decoded()
    assert decoded[:, 0, 0, 0].tolist() == list(range(40))


def test_image_files_decoded_refuses_a_square_that_does_not_fit(tmp_path: Path) -> None:
    files = files_of(random_pixels(8, 8, 3), folder=tmp_path, image_size=8, resize_size=7)
    with pytest.raises(ValueError, match=r"^resize_size=7 must be at least image_size=8"):
        files.decoded()
