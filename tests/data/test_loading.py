"""Tests of sam/data/loading.py, and of batches that come from a loader."""

import pathlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from sam.data import loading
from sam.data.augmentation import Augmentation, Normalization
from sam.data.batches import EvaluationBatches, TrainBatches
from sam.data.image_files import ImageError, ImageFiles
from sam.data.images import Images
from sam.data.loading import Loader
from sam.data.policies import auto_augment, centre_crop, inception_crop

CPU = torch.device("cpu")
RAW = Normalization((0.0,) * 3, (1 / 255,) * 3, 16, CPU)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ImageFiles:
    """Return 14 random lossless pictures of several sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    paths = []
    for number in range(14):
        pixels = generator.integers(0, 256, (20 + number, 34 - number, 3), dtype=np.uint8)
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return ImageFiles(tuple(paths), torch.arange(14), image_size=16, resize_size=18, interpolation="bilinear")


def fitted(files: ImageFiles) -> list[torch.Tensor]:
    """Return the centre-cropped pictures, uint8 [H, W, C]."""
    crop = centre_crop(18, 16, "bilinear")
    pictures = (crop(Image.open(path)) for path in files.paths)
    return [v2.functional.pil_to_tensor(picture).permute(1, 2, 0) for picture in pictures]


def train_batches(split: ImageFiles | Images, loader: Loader, **changes: int) -> TrainBatches:
    chosen = {"batch_size": 4, "seed": 1, "num_classes": 14, **changes}
    return TrainBatches(split, Augmentation(), RAW, device=CPU, loader=loader, **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loader_makes_what_was_asked_for_in_order_again_and_again(
    files: ImageFiles, num_workers: int
) -> None:
    loader = Loader(files, [centre_crop(18, 16, "bilinear")], num_workers, pin_memory=False)
    expected = fitted(files)
    for wanted in ([[3, 1], [0, 13, 2]], [[5]], [[7, 7]] * 9):
        requests = [
            (torch.tensor(indices), torch.zeros(len(indices), dtype=torch.long)) for indices in wanted
        ]
        batches = [torch.cat(pieces) for pieces in loader(requests)]
        assert len(batches) == len(wanted)
        for batch, indices in zip(batches, wanted, strict=True):
            assert torch.equal(batch, torch.stack([expected[index] for index in indices]))


def test_loader_makes_large_batches_in_pieces(files: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PIECE_BYTES", 3 * 16 * 16 * 3 + 5)
    loader = Loader(files, [centre_crop(18, 16, "bilinear")], 2, pin_memory=False)
    seeds = torch.zeros(8, dtype=torch.long)
    for pieces in loader([(torch.arange(8), seeds), (torch.arange(8).flip(0), seeds)]):
        assert [len(piece) for piece in pieces] == [3, 3, 2]
    assert torch.equal(torch.cat(pieces), torch.stack(fitted(files)[:8]).flip(0))


def test_train_batches_from_files_are_those_from_memory(files: ImageFiles) -> None:
    loader = Loader(files, [centre_crop(18, 16, "bilinear")], 0, pin_memory=False)
    in_memory = Images(torch.stack(fitted(files)), files.targets)
    augmentation = Augmentation(flip=True, crop_padding=2, cutout_size=4)
    ours, twins = (
        TrainBatches(split, augmentation, RAW, device=CPU, loader=made, batch_size=4, seed=1, num_classes=14)
        for split, made in ((files, loader), (in_memory, None))
    )
    for (images, targets, _), (twin, twin_targets, _) in zip(ours.epoch(2), twins.epoch(2), strict=True):
        assert torch.equal(images, twin)
        assert torch.equal(targets, twin_targets)
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_pictures_do_not_depend_on_workers_processes_or_where_the_epoch_began(files: ImageFiles) -> None:
    def loader(num_workers: int) -> Loader:
        steps = [inception_crop(16, "bilinear"), auto_augment("imagenet")]
        return Loader(files, steps, num_workers, pin_memory=False)

    whole = list(train_batches(files, loader(0)).epoch(1))
    state = torch.get_rng_state()
    with_workers = train_batches(files, loader(2))
    again = list(with_workers.epoch(1))
    tail = list(with_workers.epoch(1, 2))
    ranks = [list(train_batches(files, loader(0), rank=r, world_size=2).epoch(1)) for r in (0, 1)]
    for step, (images, targets, _) in enumerate(whole):
        assert torch.equal(again[step][0], images)
        assert torch.equal(torch.cat([shares[step][0] for shares in ranks]), images)
        assert torch.equal(again[step][1], targets)
    assert torch.equal(tail[0][0], whole[2][0])
    assert len(tail) == 1
    assert torch.equal(torch.get_rng_state(), state), "the loader changed the global generator"


def test_pictures_differ_from_epoch_to_epoch_and_within_a_batch(files: ImageFiles) -> None:
    same = ImageFiles(
        files.paths[:1] * 8,
        torch.zeros(8, dtype=torch.long),
        image_size=16,
        resize_size=18,
        interpolation="bilinear",
    )
    batches = train_batches(same, Loader(same, [inception_crop(16, "bilinear")], 0, pin_memory=False))
    seen = torch.cat([images for epoch in (0, 1) for images, _, _ in batches.epoch(epoch)])
    assert len(seen.unique(dim=0)) == 16


@pytest.mark.parametrize("channels", [1, 3])
def test_auto_augment_of_images_in_memory_goes_through_the_loader(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8, 16, 16, channels), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.arange(8), clean_targets=torch.arange(8).flip(0))
    normalize = Normalization((0.0,) * channels, (1 / 255,) * channels, 16, CPU)
    loader = Loader(images, [auto_augment("cifar10")], 0, pin_memory=False)
    batches = TrainBatches(
        images, Augmentation(), normalize, device=CPU, batch_size=4, seed=0, num_classes=8, loader=loader
    )
    changed = 0
    for pictures, targets, clean in batches.epoch(0):
        assert clean is not None
        assert torch.equal(clean, 7 - targets)
        changed += sum(
            not torch.equal(picture.byte().permute(1, 2, 0), pixels[target])
            for picture, target in zip(pictures, targets, strict=True)
        )
    assert changed >= 4


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loader_names_a_broken_file(tmp_path: pathlib.Path, num_workers: int) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    files = ImageFiles((str(path),), torch.zeros(1), image_size=16, resize_size=16, interpolation="bilinear")
    loader = Loader(files, [], num_workers, pin_memory=False)
    request = (torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(ImageError, match=rf"^{path} is not a readable image \(.*\); repair or delete it$"):
        list(loader([request]))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_evaluation_batches_from_files_cover_every_image_once(
    files: ImageFiles, num_workers: int, world_size: int
) -> None:
    expected = fitted(files)
    numbers = []
    for rank in range(world_size):
        loader = Loader(files, [centre_crop(18, 16, "bilinear")], num_workers, pin_memory=False)
        batches = EvaluationBatches(
            files, RAW, device=CPU, batch_size=4, loader=loader, rank=rank, world_size=world_size
        )
        for _ in range(2):  # as in training, where it runs after every epoch
            seen = []
            for images, targets in batches:
                for image, target in zip(images, targets.tolist(), strict=True):
                    assert torch.equal(image.permute(1, 2, 0), expected[target].float())
                    seen.append(target)
        numbers += seen
    assert sorted(numbers) == list(range(14))
