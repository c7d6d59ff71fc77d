"""Tests of sam/models/wide_cifar_resnet.py."""

import pytest
import torch
from torch import Tensor, nn

from sam.models.wide_cifar_resnet import WideCifarResNet


def network(depth: int = 14, width: int = 2) -> WideCifarResNet:
    torch.manual_seed(0)
    return WideCifarResNet(depth=depth, width=width, in_channels=3, num_classes=10)


def count_convolutions(n: int, w: int) -> int:
    """Add up the parameters of a stem of w channels and three stages with 2w, 4w and 8w channels."""
    total = 9 * 3 * w
    for before, after in ((w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w)):
        total += 9 * before * after + (2 * n - 1) * 9 * after * after
    return total


@pytest.mark.parametrize(("depth", "width", "convolutions"), [(32, 64, 29_419_200), (14, 2, None)])
def test_wide_cifar_resnet_has_as_many_parameters_as_counted_by_hand(
    depth: int, width: int, convolutions: int | None
) -> None:
    with torch.device("meta"):
        model = network(depth, width)
    n = (depth - 2) // 6
    modules = list(model.modules())
    counted = sum(module.weight.numel() for module in modules if isinstance(module, nn.Conv2d))
    assert counted == count_convolutions(n, width)
    assert convolutions in (None, counted)
    # Norms have scale and shift: one at the input and one in the middle of each block, one at the end.
    norms = 2 * (width + (2 * n - 1) * 2 * width + 2 * width + (2 * n - 1) * 4 * width)
    norms += 2 * (4 * width + (2 * n - 1) * 8 * width + 8 * width)
    total = sum(weight.numel() for weight in model.parameters())
    assert total == counted + norms + 8 * width * 10 + 10
    # The protocol's network has 29.44 M.
    assert convolutions is None or total == 29_442_378


def test_wide_cifar_resnet_depth_counts_convolutions_and_the_classifier() -> None:
    modules = list(network(32).modules())
    assert sum(isinstance(module, nn.Conv2d) for module in modules) == 31


def test_wide_cifar_resnet_has_three_stages_of_twice_the_width() -> None:
    model = network(14, width=2)
    shapes: list[tuple[int, ...]] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    model(torch.zeros(1, 3, 16, 16))
    assert shapes == [(4, 16, 16)] * 2 + [(8, 8, 8)] * 2 + [(16, 4, 4)] * 2
    assert [block.activate_before_shortcut for block in model.blocks] == [True] + [False] * 5


def test_wide_cifar_resnet_multiplies_negative_numbers_by_a_tenth() -> None:
    model = network().eval()
    seen: list[Tensor] = []
    # The input of the second convolution of a block, after norm and activation.
    model.blocks[3].conv2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.blocks[3].bn2.register_forward_hook(lambda _, __, output: seen.append(output))
    model(torch.randn(2, 3, 16, 16))
    normalised, activated = seen
    assert torch.equal(activated, torch.where(normalised > 0, normalised, normalised * 0.1))
    assert bool((normalised < 0).any())


def test_wide_cifar_resnet_with_branches_off_averages_the_image() -> None:
    model = network().eval()
    for block in model.blocks:
        nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(model.conv.weight)
    model.conv.weight.data[0, 0, 1, 1] = 1.0
    images = torch.full((1, 3, 8, 8), -2.0)
    # Batch norm in evaluation divides by (1 + 1e-5)**0.5, in the first block and at the end. After each,
    # leaky ReLU has slope 0.1.
    feature = -2.0 * 0.1 * 0.1 / (1 + 1e-5)
    expected = feature * model.classifier.weight[:, 0] + model.classifier.bias
    torch.testing.assert_close(model(images)[0], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("depth", [2, 9, 34])
def test_wide_cifar_resnet_refuses_other_depths(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"^depth must be 6n \+ 2 with n >= 1, such as 32, got {depth}$"):
        network(depth)
