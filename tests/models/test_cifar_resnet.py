"""Tests of sam/models/cifar_resnet.py."""

import pytest
import torch
from torch import Tensor, nn

from sam.models.cifar_resnet import CifarResNet, CifarResNetBlock

# The factor of batch norm in evaluation while its running variance is 1.
SCALE = (1 + 1e-5) ** -0.5


def resnet(depth: int = 8, width: int = 4, in_channels: int = 3, num_classes: int = 10) -> CifarResNet:
    torch.manual_seed(0)
    return CifarResNet(depth=depth, width=width, in_channels=in_channels, num_classes=num_classes)


def count_by_hand(n: int, w: int, in_channels: int, num_classes: int) -> int:
    """Add up He et al. (2016), section 4.2: convolutions, scale and shift of batch norm, classifier."""
    stem = 9 * in_channels * w + 2 * w
    stage1 = 2 * n * (9 * w * w + 2 * w)
    stage2 = 9 * w * 2 * w + (2 * n - 1) * 9 * 2 * w * 2 * w + 2 * n * 2 * 2 * w
    stage3 = 9 * 2 * w * 4 * w + (2 * n - 1) * 9 * 4 * w * 4 * w + 2 * n * 2 * 4 * w
    return stem + stage1 + stage2 + stage3 + 4 * w * num_classes + num_classes


# The counts of depth 20, 32 and 56 are those of reimplementations with option A (0.27 M, 0.46 M and
# 0.85 M in the paper).
@pytest.mark.parametrize(
    ("depth", "published"), [(20, 269_722), (32, 464_154), (56, 853_018), (8, count_by_hand(1, 16, 3, 10))]
)
def test_resnet_has_the_published_number_of_parameters(depth: int, published: int) -> None:
    model = resnet(depth, width=16)
    assert sum(weight.numel() for weight in model.parameters()) == published
    assert count_by_hand((depth - 2) // 6, 16, 3, 10) == published


@pytest.mark.parametrize(("width", "in_channels", "num_classes"), [(3, 1, 7), (8, 3, 100), (1, 2, 1)])
def test_resnet_has_as_many_parameters_as_counted_by_hand(
    width: int, in_channels: int, num_classes: int
) -> None:
    model = resnet(14, width, in_channels, num_classes)
    assert sum(weight.numel() for weight in model.parameters()) == count_by_hand(
        2, width, in_channels, num_classes
    )


@pytest.mark.parametrize("depth", [8, 20, 32])
def test_resnet_depth_counts_convolutions_and_the_classifier(depth: int) -> None:
    modules = list(resnet(depth).modules())
    assert sum(isinstance(module, nn.Conv2d) for module in modules) == depth - 1
    assert sum(isinstance(module, nn.Linear) for module in modules) == 1


@pytest.mark.parametrize(
    ("in_channels", "size", "num_classes"), [(3, 32, 10), (1, 28, 10), (3, 64, 100), (3, 30, 2), (3, 9, 2)]
)
def test_resnet_maps_images_to_logits(in_channels: int, size: int, num_classes: int) -> None:
    model = resnet(8, 4, in_channels, num_classes)
    logits = model(torch.randn(2, in_channels, size, size))
    assert logits.shape == (2, num_classes)
    assert bool(logits.isfinite().all())


def test_resnet_halves_the_size_and_doubles_the_channels_twice() -> None:
    model = resnet(14, width=4)
    shapes: list[tuple[int, ...]] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    model(torch.zeros(1, 3, 32, 32))
    assert shapes == [(4, 32, 32)] * 2 + [(8, 16, 16)] * 2 + [(16, 8, 8)] * 2


def test_block_shortcut_takes_every_second_pixel_and_zeros() -> None:
    block = CifarResNetBlock(1, 3, stride=2)
    nn.init.zeros_(block.bn2.weight)
    images = torch.tensor([[[[1.0, 2, 3, 4], [5, 6, 7, 8], [-9, 10, 11, 12], [13, 14, 15, 16]]]])
    # Every second row and column, starting with the first; then ReLU.
    expected = torch.zeros(1, 3, 2, 2)
    expected[0, 0] = torch.tensor([[1.0, 3], [0, 11]])
    assert torch.equal(block(images), expected)


def test_block_shortcut_is_the_identity_at_equal_shapes() -> None:
    block = CifarResNetBlock(3, 3, stride=1)
    nn.init.zeros_(block.bn2.weight)
    images = torch.rand(2, 3, 5, 5)
    assert torch.equal(block(images), images)


def test_block_applies_relu_after_the_first_norm_and_after_the_sum() -> None:
    block = CifarResNetBlock(1, 1, stride=1).eval()
    nn.init.dirac_(block.conv1.weight)
    nn.init.dirac_(block.conv2.weight)
    block.bn1.bias.data.fill_(-3.0)
    block.bn2.bias.data.fill_(-1.0)
    # relu(x + s * relu(s * x - 3) - 1), with s the scale of batch norm.
    images = torch.tensor([5.0, 2.0, -2.0]).view(3, 1, 1, 1)
    expected = torch.tensor([5 + SCALE * (5 * SCALE - 3) - 1, 1.0, 0.0])
    torch.testing.assert_close(block(images).flatten(), expected, rtol=0, atol=1e-6)


def test_resnet_rectifies_before_the_first_block() -> None:
    model = resnet()
    entered: list[Tensor] = []
    model.blocks.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    model(torch.randn(2, 3, 8, 8))
    # Batch norm centres each channel, so about half of the numbers are negative before ReLU.
    assert float(entered[0].detach().min()) == 0
    assert 0.3 < float((entered[0] == 0).double().mean()) < 0.7


def test_resnet_with_residuals_off_averages_every_fourth_pixel() -> None:
    model = resnet(14, width=2, in_channels=2, num_classes=3).eval()
    nn.init.dirac_(model.conv.weight)
    for block in model.blocks:
        nn.init.zeros_(block.bn2.weight)
    images = torch.rand(2, 2, 8, 8)
    means = SCALE * images[:, :, ::4, ::4].mean((2, 3))
    expected = means @ model.classifier.weight[:, :2].T + model.classifier.bias
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("in_channels", [1, 3])
def test_resnet_keeps_channels_last_through_every_block(in_channels: int) -> None:
    model = resnet(14, in_channels=in_channels).to(memory_format=torch.channels_last)
    kept: list[bool] = []

    def record(_: nn.Module, __: object, output: Tensor) -> None:
        kept.append(output.is_contiguous(memory_format=torch.channels_last))

    for module in model.modules():
        if isinstance(module, CifarResNetBlock | nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(record)
    images = torch.randn(2, in_channels, 16, 16).to(memory_format=torch.channels_last)
    model(images)
    # 6 blocks, 13 convolutions, 13 batch norms.
    assert kept == [True] * 32


def test_resnet_gradient_reaches_every_parameter() -> None:
    model = resnet(14)
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    untouched = [
        name
        for name, weight in model.named_parameters()
        if weight.grad is None or weight.grad.count_nonzero() == 0
    ]
    assert untouched == []


def test_resnet_is_initialised_as_layers_say() -> None:
    model = resnet(14, width=16, num_classes=4)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            weights = module.weight.detach().double()
            # The sample variance of n normal numbers has a relative standard deviation of (2 / n)**0.5.
            ratio = float((weights**2).mean()) * module.out_channels * 9 / 2
            assert abs(ratio - 1) < 6 * (2 / weights.numel()) ** 0.5
    assert 0.49 < float(model.classifier.weight.detach().abs().max()) <= 0.5


@pytest.mark.parametrize("depth", [-4, 0, 2, 7, 9, 18, 28])
def test_resnet_refuses_other_depths(depth: int) -> None:
    message = rf"^depth must be 6n \+ 2 with n >= 1, such as 20, got {depth}$"
    with pytest.raises(ValueError, match=message):
        resnet(depth)
