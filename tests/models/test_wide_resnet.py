"""Tests of sam/models/wide_resnet.py."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sam.models.wide_resnet import WideResNet, WideResNetBlock

# The factor of batch norm in evaluation while its running variance is 1.
SCALE = (1 + 1e-5) ** -0.5


def wide_resnet(depth: int = 10, width: int = 1, in_channels: int = 3, num_classes: int = 10) -> WideResNet:
    torch.manual_seed(0)
    return WideResNet(depth=depth, width=width, in_channels=in_channels, num_classes=num_classes)


def count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def count_by_hand(n: int, k: int, in_channels: int, num_classes: int) -> int:
    """Add up the parameters in Table 1 of Zagoruyko and Komodakis (2016), without those of shortcuts.

    A pre-activation block has a batch norm at its input and one in its middle; the network ends with another.
    """
    w = 16 * k
    convolutions = 9 * in_channels * 16
    convolutions += 9 * 16 * w + (2 * n - 1) * 9 * w * w
    convolutions += 9 * w * 2 * w + (2 * n - 1) * 9 * 2 * w * 2 * w
    convolutions += 9 * 2 * w * 4 * w + (2 * n - 1) * 9 * 4 * w * 4 * w
    norms = 2 * (16 + (2 * n - 1) * w)
    norms += 2 * (w + (2 * n - 1) * 2 * w)
    norms += 2 * (2 * w + (2 * n - 1) * 4 * w)
    norms += 2 * 4 * w
    return convolutions + norms + 4 * w * num_classes + num_classes


# The exact count of the authors' network on CIFAR-10 (36.5 M, 2.7 M and 2.2 M in the paper), and our count
# in millions.
@pytest.mark.parametrize(
    ("depth", "k", "with_convolved_shortcuts", "millions"),
    [(28, 10, 36_479_194, "36.22"), (16, 4, 2_748_890, "2.71"), (40, 2, 2_243_546, "2.23")],
)
def test_wide_resnet_has_the_published_number_less_the_shortcuts(
    depth: int, k: int, with_convolved_shortcuts: int, millions: str
) -> None:
    with torch.device("meta"):
        model = wide_resnet(depth, k)
    shortcuts = 16 * 16 * k + 16 * k * 32 * k + 32 * k * 64 * k
    assert count(model) == with_convolved_shortcuts - shortcuts
    assert f"{count(model) / 1e6:.2f}" == millions
    assert count(model) == count_by_hand((depth - 4) // 6, k, 3, 10)


@pytest.mark.parametrize(("width", "in_channels", "num_classes"), [(1, 1, 7), (2, 3, 100)])
def test_wide_resnet_has_as_many_parameters_as_counted_by_hand(
    width: int, in_channels: int, num_classes: int
) -> None:
    model = wide_resnet(16, width, in_channels, num_classes)
    assert count(model) == count_by_hand(2, width, in_channels, num_classes)


@pytest.mark.parametrize("depth", [10, 16, 28])
def test_wide_resnet_depth_counts_three_shortcuts_that_have_no_convolution_here(depth: int) -> None:
    modules = list(wide_resnet(depth).modules())
    assert sum(isinstance(module, nn.Conv2d) for module in modules) == depth - 3
    assert sum(isinstance(module, nn.Linear) for module in modules) == 1


@pytest.mark.parametrize(
    ("in_channels", "size", "num_classes"), [(3, 32, 10), (1, 28, 10), (3, 64, 100), (3, 8, 2)]
)
def test_wide_resnet_maps_images_to_logits(in_channels: int, size: int, num_classes: int) -> None:
    logits = wide_resnet(10, 1, in_channels, num_classes)(torch.randn(2, in_channels, size, size))
    assert logits.shape == (2, num_classes)
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("size", [9, 30, 50])
def test_wide_resnet_maps_images_of_any_size_to_logits(size: int) -> None:
    try:
        assert wide_resnet(10)(torch.zeros(2, 3, size, size)).shape == (2, 10)
    except ValueError as error:
        assert str(size) in str(error)  # a refusal that names the size is fine too


def test_wide_resnet_halves_the_size_and_doubles_the_channels_twice() -> None:
    model = wide_resnet(16, width=2)
    shapes: list[tuple[int, ...]] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    model(torch.zeros(1, 3, 16, 16))
    assert shapes == [(32, 16, 16)] * 2 + [(64, 8, 8)] * 2 + [(128, 4, 4)] * 2


def test_wide_resnet_branches_off_after_the_norm_in_the_first_block_only() -> None:
    assert [block.activate_before_shortcut for block in wide_resnet(22).blocks] == [True] + [False] * 8


def test_block_shortcut_averages_squares_of_pixels_and_appends_zeros() -> None:
    block = WideResNetBlock(1, 3, stride=2, activate_before_shortcut=False)
    nn.init.zeros_(block.conv2.weight)
    images = torch.tensor([[[[1.0, 2, 3, 4], [5, 6, 7, 8], [-9, 10, 11, 12], [13, 14, 15, 16]]]])
    expected = torch.zeros(1, 3, 2, 2)
    # (1 + 2 + 5 + 6) / 4 and so on, without ReLU.
    expected[0, 0] = torch.tensor([[3.5, 5.5], [7.0, 13.5]])
    assert torch.equal(block(images), expected)


@pytest.mark.parametrize(("activate", "expected"), [(False, [-2.0, 1.0]), (True, [0.0, SCALE])])
def test_block_shortcut_branches_off_before_or_after_the_norm(activate: bool, expected: list[float]) -> None:
    block = WideResNetBlock(1, 1, stride=1, activate_before_shortcut=activate).eval()
    nn.init.zeros_(block.conv2.weight)
    result = block(torch.tensor([-2.0, 1.0]).view(2, 1, 1, 1))
    torch.testing.assert_close(result.flatten(), torch.tensor(expected), rtol=0, atol=1e-7)


def test_block_applies_norm_and_relu_before_each_convolution() -> None:
    block = WideResNetBlock(1, 1, stride=1, activate_before_shortcut=False).eval()
    nn.init.dirac_(block.conv1.weight)
    nn.init.dirac_(block.conv2.weight)
    block.bn1.bias.data.fill_(1.0)
    block.bn2.bias.data.fill_(-2.0)
    # x + relu(s * relu(s * x + 1) - 2), with s the scale of batch norm.
    images = torch.tensor([3.0, 0.5, -2.0]).view(3, 1, 1, 1)
    expected = torch.tensor([3 + SCALE * (3 * SCALE + 1) - 2, 0.5, -2.0])
    torch.testing.assert_close(block(images).flatten(), expected, rtol=0, atol=1e-6)


def test_wide_resnet_with_residuals_off_averages_the_image() -> None:
    model = wide_resnet(16, in_channels=2, num_classes=3).eval()
    nn.init.dirac_(model.conv.weight)
    for block in model.blocks:
        nn.init.zeros_(block.conv2.weight)
    model.bn.bias.data.fill_(-0.5)
    images = torch.rand(2, 2, 8, 8)
    # Scaled by the first block's norm, averaged over 4 x 4 pixels, scaled by the last norm, ReLU, averaged.
    pooled = SCALE * functional.avg_pool2d(images, 4)
    features = (SCALE * pooled - 0.5).clamp(min=0).mean((2, 3))
    expected = features @ model.classifier.weight[:, :2].T + model.classifier.bias
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("in_channels", [1, 3])
def test_wide_resnet_keeps_channels_last_through_every_block(in_channels: int) -> None:
    model = wide_resnet(16, in_channels=in_channels).to(memory_format=torch.channels_last)
    kept: list[bool] = []

    def record(_: nn.Module, __: object, output: Tensor) -> None:
        kept.append(output.is_contiguous(memory_format=torch.channels_last))

    for module in model.modules():
        if isinstance(module, WideResNetBlock | nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(record)
    model(torch.randn(2, in_channels, 16, 16).to(memory_format=torch.channels_last))
    # 6 blocks, 13 convolutions, 13 batch norms.
    assert kept == [True] * 32


def test_wide_resnet_gradient_reaches_every_parameter() -> None:
    model = wide_resnet(16)
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    untouched = [
        name
        for name, weight in model.named_parameters()
        if weight.grad is None or weight.grad.count_nonzero() == 0
    ]
    assert untouched == []


def test_wide_resnet_is_initialised_as_layers_say() -> None:
    model = wide_resnet(16, num_classes=4)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            weights = module.weight.detach().double()
            # The sample variance of n normal numbers has a relative standard deviation of (2 / n)**0.5.
            ratio = float((weights**2).mean()) * module.out_channels * 9 / 2
            assert abs(ratio - 1) < 6 * (2 / weights.numel()) ** 0.5
    assert 0.49 < float(model.classifier.weight.detach().abs().max()) <= 0.5


@pytest.mark.parametrize("depth", [-2, 0, 4, 9, 11, 20, 27])
def test_wide_resnet_refuses_other_depths(depth: int) -> None:
    message = rf"^depth must be 6n \+ 4 with n >= 1, such as 28, got {depth}$"
    with pytest.raises(ValueError, match=message):
        wide_resnet(depth)
