"""Tests of sam/models/pyramidnet.py; test_gates.py tests its gates."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import nn

from sam.models.gates import ShakeDrop
from sam.models.pyramidnet import PyramidNet, PyramidNetBlock


def pyramidnet(
    depth: int = 20, width: int = 4, alpha: float = 6, shakedrop: bool = False, num_classes: int = 10
) -> PyramidNet:
    torch.manual_seed(0)
    return PyramidNet(
        depth=depth, width=width, in_channels=3, num_classes=num_classes, alpha=alpha, shakedrop=shakedrop
    )


def count_by_hand(
    depth: int, width: int, alpha: int, num_classes: int, to_integer: Callable[[Fraction], int]
) -> int:
    """Add up the parameters of Han et al. (2017): stem with norm, growing bottlenecks, norm, classifier.

    Block k of N has w = width + k * alpha / N channels, made an integer, and 4 w output channels.
    """
    total_blocks = (depth - 2) // 3
    total = 9 * 3 * width + 2 * width
    before = width
    for number in range(1, total_blocks + 1):
        w = to_integer(width + Fraction(number * alpha, total_blocks))
        total += before * w + 9 * w * w + w * 4 * w
        total += 2 * (before + w + w + 4 * w)
        before = 4 * w
    return total + 2 * before + before * num_classes + num_classes


def test_pyramidnet272_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = pyramidnet(272, 16, 200)
    total = sum(weight.numel() for weight in model.parameters())
    assert total == count_by_hand(272, 16, 200, 10, round) == 26_210_842
    # Han et al. print 26.0 M. This may mean rounded widths without the parameters of the norms, or truncated
    # widths with them, about 0.2 M less.
    norms = sum(2 * module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert f"{(total - norms) / 1e6:.2f}" == "26.00"
    assert f"{count_by_hand(272, 16, 200, 10, int) / 1e6:.2f}" == "26.05"


@pytest.mark.parametrize(
    ("depth", "width", "alpha", "num_classes"), [(110, 16, 270, 10), (11, 3, 5, 7), (20, 4, 6, 100)]
)
def test_pyramidnet_has_as_many_parameters_as_counted_by_hand(
    depth: int, width: int, alpha: int, num_classes: int
) -> None:
    with torch.device("meta"):
        models = [pyramidnet(depth, width, alpha, flag, num_classes) for flag in (False, True)]
    for model in models:
        total = sum(weight.numel() for weight in model.parameters())
        assert total == count_by_hand(depth, width, alpha, num_classes, round)


@pytest.mark.parametrize("depth", [11, 20, 272])
def test_pyramidnet_depth_counts_convolutions_and_the_classifier(depth: int) -> None:
    with torch.device("meta"):
        modules = list(pyramidnet(depth).modules())
    assert sum(isinstance(module, nn.Conv2d) for module in modules) == depth - 1


def test_pyramidnet_widens_by_equal_steps_and_halves_twice() -> None:
    model = pyramidnet(20, width=4, alpha=8)
    shapes: list[tuple[int, ...]] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    model(torch.zeros(2, 3, 16, 16))
    # 4 + 8 * 1/6, 4 + 8 * 2/6, ...: 5.33, 6.67, 8, 9.33, 10.67, 12. Rounded, then times 4.
    widths = [4 * width for width in (5, 7, 8, 9, 11, 12)]
    sizes = [16, 16, 8, 8, 4, 4]
    assert shapes == [(width, size, size) for width, size in zip(widths, sizes, strict=True)]


def test_block_has_norms_around_every_convolution_and_two_relus() -> None:
    block = PyramidNetBlock(4, 2, 2, nn.Identity())
    names = [type(module).__name__ for module in block.branch]
    assert names == [
        *("BatchNorm2d", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d"),
        *("BatchNorm2d", "Identity"),
    ]
    kernels = [module.kernel_size for module in block.branch if isinstance(module, nn.Conv2d)]
    strides = [module.stride for module in block.branch if isinstance(module, nn.Conv2d)]
    assert kernels == [(1, 1), (3, 3), (1, 1)]
    assert strides == [(1, 1), (2, 2), (1, 1)]


def test_block_shortcut_averages_squares_and_appends_zeros() -> None:
    block = PyramidNetBlock(1, 1, 2, nn.Identity())
    nn.init.zeros_(block.branch[8].weight)
    images = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [-9, 10, 11, 12], [13, 14, 15, 16]]).view(1, 1, 4, 4)
    expected = torch.zeros(1, 4, 2, 2)
    expected[0, 0] = torch.tensor([[3.5, 5.5], [7.0, 13.5]])
    assert torch.equal(block(images), expected)


def test_block_gates_the_branch_and_not_the_shortcut() -> None:
    torch.manual_seed(0)
    block = PyramidNetBlock(4, 1, 1, ShakeDrop(0.25)).eval()
    images = torch.randn(2, 4, 5, 5)
    expected = images + 0.25 * block.branch[:-1](images)
    torch.testing.assert_close(block(images), expected, rtol=0, atol=1e-6)


def test_pyramidnet_keeps_deeper_branches_with_lower_probability() -> None:
    model = pyramidnet(20, shakedrop=True)
    kept = [module.keep_probability for module in model.modules() if isinstance(module, ShakeDrop)]
    assert kept == pytest.approx([1 - 0.5 * number / 6 for number in range(1, 7)], abs=1e-12)
    assert kept[-1] == 0.5
    assert not any(isinstance(module, ShakeDrop) for module in pyramidnet(20).modules())


def test_pyramidnet_applies_norm_and_relu_before_it_averages() -> None:
    model = pyramidnet(11).eval()
    given: list[torch.Tensor] = []
    model.blocks.register_forward_hook(lambda _, __, output: given.append(output))
    nn.init.constant_(model.bn2.bias, -0.2)
    logits = model(torch.randn(2, 3, 8, 8))
    features = ((1 + 1e-5) ** -0.5 * given[0] - 0.2).clamp(min=0).mean((2, 3))
    expected = features @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("depth", [2, 12, 100, 270])
def test_pyramidnet_refuses_other_depths(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"^depth must be 9n \+ 2 with n >= 1, such as 272, got {depth}$"):
        pyramidnet(depth)


@pytest.mark.parametrize("alpha", [0, -3, float("nan")])
def test_pyramidnet_refuses_to_narrow(alpha: float) -> None:
    with pytest.raises(ValueError, match=f"^alpha must be above 0, such as 200, got {alpha}$"):
        pyramidnet(alpha=alpha)
