"""Tests of sam/models/layers.py: pooled shortcuts, depths, shapes of blocks, initialisation with fan_in."""

import pytest
import torch
from torch import Tensor, nn

from sam.models.layers import PooledShortcut, block_shapes, blocks_per_stage, conv1x1, conv3x3, initialise


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_and_pooled_shortcut_agree_on_the_size(size: int, stride: int) -> None:
    images = torch.zeros(2, 3, size, size)
    shapes = {
        conv1x1(3, 5, stride)(images).shape,
        conv3x3(3, 5, stride)(images).shape,
        PooledShortcut(5, stride)(images).shape,
    }
    assert len(shapes) == 1


def test_convolutions_have_a_bias_on_request() -> None:
    assert conv1x1(2, 3).bias is None
    for convolution in (conv1x1(2, 3, bias=True), conv3x3(2, 3, bias=True)):
        assert convolution.bias is not None
        assert convolution.bias.shape == (3,)


def test_pooled_shortcut_averages_what_is_left_at_the_edges() -> None:
    images = torch.arange(1.0, 10).view(1, 1, 3, 3)
    # (1 + 2 + 4 + 5) / 4, (3 + 6) / 2, (7 + 8) / 2, 9.
    expected = torch.tensor([[[3.0, 4.5], [7.5, 9.0]], [[0, 0], [0, 0]]])
    assert torch.equal(PooledShortcut(2, 2)(images)[0], expected)


def test_pooled_shortcut_of_stride_one_only_appends() -> None:
    images = torch.randn(2, 3, 4, 5)
    assert torch.equal(PooledShortcut(3, 1)(images), images)
    assert torch.equal(PooledShortcut(4, 1)(images)[:, :3], images)


@pytest.mark.parametrize(
    ("depth", "layers", "other", "expected"), [(8, 2, 2, 1), (56, 2, 2, 9), (28, 2, 4, 4), (272, 3, 2, 30)]
)
def test_blocks_per_stage_solves_for_n(depth: int, layers: int, other: int, expected: int) -> None:
    assert blocks_per_stage(depth, layers, other, example=8) == expected


@pytest.mark.parametrize("depth", [-7, 2, 12, 19])
def test_blocks_per_stage_refuses_other_depths(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"^depth must be 9n \+ 2 with n >= 1, such as 11, got {depth}$"):
        blocks_per_stage(depth, 3, 2, example=11)


def test_block_shapes_chains_channels_and_halves_at_later_stages() -> None:
    shapes = list(block_shapes(3, (4, 4, 8), 2))
    assert shapes == [(3, 4, 1), (4, 4, 1), (4, 4, 2), (4, 4, 1), (4, 8, 2), (8, 8, 1)]


def second_moment(weight: Tensor) -> float:
    return float(weight.detach().double().square().mean())


def test_initialise_with_fan_in_keeps_the_size_of_signals() -> None:
    torch.manual_seed(0)
    convolution, classifier = nn.Conv2d(64, 16, 3), nn.Linear(400, 50)
    initialise(nn.Sequential(convolution, classifier), fan="fan_in")
    # Relative deviation of the second moment of n numbers: (2 / n)**0.5 if normal, (0.8 / n)**0.5 if uniform.
    ratio = second_moment(convolution.weight) * 64 * 9 / 2
    assert abs(ratio - 1) < 6 * (2 / convolution.weight.numel()) ** 0.5
    assert convolution.bias is not None
    assert not convolution.bias.count_nonzero()
    assert 0.99 / 20 < float(classifier.weight.detach().abs().max()) <= 1 / 20
    ratio = second_moment(classifier.weight) * 3 * 400
    assert abs(ratio - 1) < 6 * (0.8 / classifier.weight.numel()) ** 0.5
    assert not classifier.bias.count_nonzero()
