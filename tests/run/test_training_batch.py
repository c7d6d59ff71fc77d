"""Tests of sam/run/training_batch.py."""

import pytest
import torch

from sam.data.augmentation import Augmentation, Normalization
from sam.data.images import Images
from sam.run.training_batch import captions, pictures


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_the_pixels_before_normalisation(channels: int) -> None:
    pixels = torch.randint(0, 256, (5, 6, 7, channels), dtype=torch.uint8)
    normalize = Normalization(
        (0.49, 0.48, 0.45)[:channels], (0.25, 0.24, 0.26)[:channels], 7, torch.device("cpu")
    )
    images = Images(pixels, torch.zeros(5, dtype=torch.long))
    batch = Augmentation()(images, torch.arange(5), torch.rand(5, 5), normalize)
    shown = pictures(batch, normalize)
    torch.testing.assert_close(shown, (pixels / 255).expand(5, 6, 7, 3), rtol=0, atol=1e-6)
    assert 0 <= shown.min() <= shown.max() <= 1


def test_captions_name_the_class_of_each_image() -> None:
    assert captions(torch.tensor([2, 0]), ("cat", "dog", "frog")) == ["frog", "cat"]


def test_captions_of_soft_targets_name_both_classes_with_their_shares() -> None:
    targets = torch.tensor([[0.25, 0, 0.75], [0, 1, 0], [0.5, 0.5, 0]])
    found = captions(targets, ("cat", "dog", "frog"))
    assert found == ["0.75 frog\n0.25 cat", "1.00 dog", "0.50 dog\n0.50 cat"]
