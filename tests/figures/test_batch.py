"""Tests of sam/figures/batch.py."""

import numpy as np
import pytest

from sam.figures.batch import draw_sheet


@pytest.mark.parametrize("num_images", [1, 7, 8, 9, 64])
def test_sheet_shows_every_image_with_its_label(num_images: int) -> None:
    images = np.random.default_rng(0).random((num_images, 4, 4, 3), dtype=np.float32)
    labels = [f"label {number}" for number in range(num_images)]
    axes = draw_sheet(images, labels, "title").axes
    shown = [axis for axis in axes if axis.images]
    assert [axis.get_title() for axis in shown] == labels
    for axis, image in zip(shown, images, strict=True):
        assert (axis.images[0].get_array() == image).all()
    assert len(axes) - len(shown) < 8
