"""Tests of sam/models/shake_shake.py; test_gates.py tests its gates."""

import pytest
import torch
from torch import nn

from sam.models.shake_shake import ShakeShakeBlock, ShakeShakeNet, TwoPathShortcut

# The factor of batch norm in evaluation while its running variance is 1.
SCALE = (1 + 1e-5) ** -0.5


def network(depth: int = 14, width: int = 4, in_channels: int = 3, num_classes: int = 10) -> ShakeShakeNet:
    torch.manual_seed(0)
    return ShakeShakeNet(depth=depth, width=width, in_channels=in_channels, num_classes=num_classes)


def count_by_hand(n: int, w: int, in_channels: int, num_classes: int) -> int:
    """Add up the parameters of a stem of 16 channels with norm, and stages with w, 2w and 4w channels.

    A block has two branches of two convolutions, each with a norm. A stage has one shortcut with a norm,
    unless its input has the right number of channels.
    """
    total = 9 * in_channels * 16 + 2 * 16
    before = 16
    for after in (w, 2 * w, 4 * w):
        total += 2 * (9 * before * after + (2 * n - 1) * 9 * after * after + 2 * n * 2 * after)
        if before != after:
            total += before * after + 2 * after
        before = after
    return total + before * num_classes + num_classes


@pytest.mark.parametrize(
    ("depth", "width", "in_channels", "num_classes", "expected"),
    # Gastaldi's comparison of networks gives 26.2 M for 26 2x96d.
    [(26, 96, 3, 10, 26_192_922), (14, 16, 1, 7, None), (8, 4, 3, 100, None)],
)
def test_shake_shake_has_the_published_number_of_parameters(
    depth: int, width: int, in_channels: int, num_classes: int, expected: int | None
) -> None:
    with torch.device("meta"):
        model = network(depth, width, in_channels, num_classes)
    total = sum(weight.numel() for weight in model.parameters())
    assert total == count_by_hand((depth - 2) // 6, width, in_channels, num_classes)
    assert expected in (None, total)


@pytest.mark.parametrize(("depth", "blocks"), [(8, 1), (26, 4)])
def test_shake_shake_has_three_stages_of_blocks(depth: int, blocks: int) -> None:
    model = network(depth)
    shapes: list[tuple[int, ...]] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    model(torch.zeros(2, 3, 16, 16))
    assert shapes == [(4, 16, 16)] * blocks + [(8, 8, 8)] * blocks + [(16, 4, 4)] * blocks


def test_shortcut_sees_every_second_pixel_and_those_between() -> None:
    shortcut = TwoPathShortcut(1, 2, 2).eval()
    nn.init.ones_(shortcut.conv1.weight)
    nn.init.ones_(shortcut.conv2.weight)
    images = torch.arange(1.0, 17).view(1, 1, 4, 4)
    expected = torch.tensor([[[1.0, 3], [9, 11]], [[6, 8], [14, 16]]]) * SCALE
    torch.testing.assert_close(shortcut(images)[0], expected, rtol=1e-6, atol=0)


def test_shortcut_pads_with_zeros_at_the_lower_right() -> None:
    for stride, moved in ((1, [[5.0, 6, 0], [8, 9, 0], [0, 0, 0]]), (2, [[5.0, 0], [0, 0]])):
        shortcut = TwoPathShortcut(1, 2, stride).eval()
        nn.init.ones_(shortcut.conv2.weight)
        images = torch.arange(1.0, 10).view(1, 1, 3, 3)
        torch.testing.assert_close(shortcut(images)[0, 1], torch.tensor(moved) * SCALE, rtol=1e-6, atol=0)


@pytest.mark.parametrize("width", [4, 16])
def test_shake_shake_shortcuts_have_parameters_where_channels_change(width: int) -> None:
    blocks = network(14, width).blocks
    found = [number for number, block in enumerate(blocks) if isinstance(block.shortcut, TwoPathShortcut)]
    assert found == ([2, 4] if width == 16 else [0, 2, 4])


def test_block_in_evaluation_is_the_shortcut_plus_the_mean_of_its_branches() -> None:
    torch.manual_seed(0)
    block = ShakeShakeBlock(4, 4, 1).eval()
    images = torch.randn(2, 4, 5, 5)
    names = ["ReLU", "Conv2d", "BatchNorm2d"] * 2
    for branch in (block.branch1, block.branch2):
        assert [type(module).__name__ for module in branch] == names
    expected = images + (block.branch1(images) + block.branch2(images)) / 2
    torch.testing.assert_close(block(images), expected, rtol=0, atol=1e-6)


def test_block_in_training_mixes_its_branches_with_one_weight_per_image() -> None:
    torch.manual_seed(0)
    block = ShakeShakeBlock(4, 4, 1)
    images = torch.randn(3, 4, 5, 5)
    torch.manual_seed(1)
    alpha = torch.rand(2, 3)[0].view(3, 1, 1, 1)
    expected = images + alpha * block.branch1(images) + (1 - alpha) * block.branch2(images)
    torch.manual_seed(1)
    torch.testing.assert_close(block(images), expected, rtol=0, atol=1e-6)


def test_shake_shake_rectifies_and_averages_what_the_last_block_gives() -> None:
    model = network(8).eval()
    given: list[torch.Tensor] = []
    model.blocks.register_forward_hook(lambda _, __, output: given.append(output))
    logits = model(torch.randn(2, 3, 8, 8))
    expected = given[0].clamp(min=0).mean((2, 3)) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    assert bool((given[0] < 0).any())


@pytest.mark.parametrize("depth", [2, 10, 28])
def test_shake_shake_refuses_other_depths(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"^depth must be 6n \+ 2 with n >= 1, such as 26, got {depth}$"):
        network(depth)


def test_shake_shake_refuses_odd_widths() -> None:
    message = "^width must be even, since shortcuts have two halves, got 5$"
    with pytest.raises(ValueError, match=message):
        network(width=5)
