"""Tests of sam/models/wide_resnet.py: shortcut="conv", batch_norm=False and dropout."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sam.models.wide_resnet import WideResNet, WideResNetBlock

# The factor of batch norm in evaluation while its running variance is 1.
SCALE = (1 + 1e-5) ** -0.5


def wide_resnet(depth: int = 10, width: int = 1, seed: int = 0, **options: object) -> WideResNet:
    torch.manual_seed(seed)
    return WideResNet(depth=depth, width=width, in_channels=3, num_classes=10, **options)  # type: ignore[arg-type]


def count_by_hand(n: int, k: int, shortcut: str, batch_norm: bool) -> int:
    """Add up the weights and the norms or biases, for 3 input channels and 10 classes.

    A block has a norm at its input and one in its middle; the network ends with another. A convolution has
    one bias per output channel.
    """
    widths = (16 * k, 32 * k, 64 * k)
    total = 9 * 3 * 16 + 64 * k * 10 + 10
    before = 16
    norm_channels, bias_channels = 0, 16
    for w in widths:
        total += 9 * before * w + (2 * n - 1) * 9 * w * w
        norm_channels += before + (2 * n - 1) * w
        bias_channels += 2 * n * w
        if shortcut == "conv" and before != w:
            total += before * w
            bias_channels += w
        before = w
    norm_channels += before
    return total + (2 * norm_channels if batch_norm else bias_channels)


# The authors' network with 1 x 1 convolutions has 36.48 M, printed as 36.5 M in their paper.
@pytest.mark.parametrize(
    ("depth", "k", "shortcut", "batch_norm", "expected"),
    [
        (28, 10, "conv", True, 36_479_194),
        (28, 10, "pool", True, 36_220_634),
        (16, 4, "conv", True, 2_748_890),
        (40, 2, "conv", True, 2_243_546),
        (40, 10, "pool", False, 55_569_738),
        (40, 10, "conv", False, 55_829_418),
        (10, 1, "conv", True, None),
        (10, 1, "conv", False, None),
        (10, 1, "pool", False, None),
    ],
)
def test_wide_resnet_has_the_published_number_of_parameters(
    depth: int, k: int, shortcut: str, batch_norm: bool, expected: int | None
) -> None:
    with torch.device("meta"):
        model = wide_resnet(depth, k, shortcut=shortcut, batch_norm=batch_norm)
    total = sum(weight.numel() for weight in model.parameters())
    assert total == count_by_hand((depth - 4) // 6, k, shortcut, batch_norm)
    assert expected in (None, total)


@pytest.mark.parametrize(("width", "convolved"), [(1, [2, 4]), (2, [0, 2, 4])])
def test_wide_resnet_convolves_the_shortcuts_that_change_the_shape(width: int, convolved: list[int]) -> None:
    model = wide_resnet(16, width, shortcut="conv")
    found = [number for number, block in enumerate(model.blocks) if isinstance(block.shortcut, nn.Conv2d)]
    assert found == convolved
    assert [
        number for number, block in enumerate(model.blocks) if block.activate_before_shortcut
    ] == convolved


def test_block_convolves_its_input_after_norm_and_relu() -> None:
    block = WideResNetBlock(1, 2, 2, activate_before_shortcut=True, convolve_shortcut=True).eval()
    nn.init.zeros_(block.conv2.weight)
    block.shortcut.weight.data.copy_(torch.tensor([2.0, -3.0]).view(2, 1, 1, 1))
    block.bn1.bias.data.fill_(-1.0)
    images = torch.tensor([[5.0, 9.0], [9.0, 9.0]]).view(1, 1, 2, 2)
    # The upper left pixel of every square.
    expected = torch.tensor([2.0, -3.0]) * (5 * SCALE - 1)
    torch.testing.assert_close(block(images).flatten(), expected, rtol=0, atol=1e-5)


def test_block_without_norms_computes_its_formula() -> None:
    torch.manual_seed(0)
    block = WideResNetBlock(
        3, 4, 2, activate_before_shortcut=False, batch_norm=False, branch_scale=0.3
    ).double()
    images = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    for convolution in (block.conv1, block.conv2):
        nn.init.normal_(convolution.bias)
    hidden = functional.conv2d(images.clamp(min=0), block.conv1.weight, block.conv1.bias, 2, 1).clamp(min=0)
    branch = functional.conv2d(hidden, block.conv2.weight, block.conv2.bias, 1, 1)
    shortcut = torch.zeros(2, 4, 3, 3, dtype=torch.float64)
    shortcut[:, :3] = images.view(2, 3, 3, 2, 3, 2).mean((3, 5))
    torch.testing.assert_close(block(images), shortcut + 0.3 * branch, rtol=0, atol=1e-12)


def test_block_drops_entries_between_relu_and_second_convolution() -> None:
    torch.manual_seed(0)
    block = WideResNetBlock(2, 2, 1, activate_before_shortcut=False, dropout=0.4).double()
    nn.init.dirac_(block.conv1.weight)
    nn.init.dirac_(block.conv2.weight)
    images = torch.randn(8, 2, 40, 40, dtype=torch.float64)
    branch = block(images) - images
    # The two convolutions change nothing, so the branch shows what dropout leaves of the hidden values.
    hidden = block.bn2(block.bn1(images).clamp(min=0)).clamp(min=0)
    is_kept = branch.abs() > 1e-12
    torch.testing.assert_close(branch, hidden * is_kept / 0.6, rtol=0, atol=1e-12)
    share = float(is_kept[hidden > 1e-12].double().mean())
    # A binomial share of about 12,800 entries; 0.03 is 7 standard deviations.
    assert abs(share - 0.6) < 0.03


def test_wide_resnet_passes_dropout_to_every_block_and_makes_no_draw_without_it() -> None:
    images = torch.randn(2, 3, 8, 8)
    for dropout in (0.0, 0.3):
        model = wide_resnet(16, dropout=dropout)
        assert [block.dropout.p for block in model.blocks] == [dropout] * 6
        torch.manual_seed(1)
        before = torch.get_rng_state()
        model(images)
        assert torch.equal(torch.get_rng_state(), before) == (dropout == 0)
        model.eval()
        torch.testing.assert_close(model(images), model(images), rtol=0, atol=0)


def test_wide_resnet_without_norms_has_none_and_biases_of_zero() -> None:
    model = wide_resnet(16, batch_norm=False)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 13
    assert all(module.bias is not None and not module.bias.count_nonzero() for module in convolutions)
    assert [block.branch_scale for block in model.blocks] == [6**-0.5] * 6
    assert [block.branch_scale for block in wide_resnet(16).blocks] == [1.0] * 6


# The second moment of the last block's output divided by that of the stem's. On average over the weights, a
# block that keeps the shape multiplies it by 1 to 1 + 2/18, so 18 blocks by less than e^2 = 7.4. Padding
# with zeros and the randomness of narrow layers can lower it. Without 1 x 1 convolutions, it is halved by the
# first ReLU and by each doubling of the channels, and two averagings remove up to 3/4 of what differs from
# pixel to pixel. This gives 1/256 to e^2/16. Measured: 0.9 to 4.2, and 0.11 to 0.28.
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shortcut", "low", "high"), [("conv", 0.4, 7.4), ("pool", 1 / 256, 0.46)])
def test_wide_resnet_without_norms_keeps_the_size_of_its_signal(
    shortcut: str, low: float, high: float, seed: int
) -> None:
    growth, logits = signal_growth(wide_resnet(40, 2, seed, shortcut=shortcut, batch_norm=False))
    assert low < growth < high
    # The loss therefore starts near that of guessing.
    assert float(logits.var()) < 2


def test_wide_resnet_without_norms_would_explode_without_smaller_branches() -> None:
    model = wide_resnet(40, 2, shortcut="conv", batch_norm=False)
    for block in model.blocks:
        block.branch_scale = 1.0
    # Every block roughly doubles the second moment: 2**18 = 262 144.
    assert signal_growth(model)[0] > 10_000


@torch.no_grad()
def signal_growth(model: WideResNet) -> tuple[float, Tensor]:
    """Return the ratio of second moments after and before the blocks, and the logits."""
    moments: list[float] = []
    for module in (model.conv, model.blocks):
        module.register_forward_hook(lambda _, __, output: moments.append(float(output.square().mean())))
    torch.manual_seed(0)
    logits = model(torch.randn(4, 3, 16, 16))
    return moments[1] / moments[0], logits


def steps(model: nn.Module, lr: float) -> list[float]:
    """Return the loss at ten steps of SGD with momentum on the same images, and after them."""
    torch.manual_seed(0)
    images, targets = torch.randn(16, 3, 16, 16), torch.arange(16) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    losses: list[float] = []
    for _ in range(11):
        loss = functional.cross_entropy(model(images), targets)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


@pytest.mark.parametrize("shortcut", ["pool", "conv"])
def test_wide_resnet_without_norms_learns_from_the_first_steps(shortcut: str) -> None:
    losses = steps(wide_resnet(40, 2, shortcut=shortcut, batch_norm=False), lr=0.03)
    assert 2.0 < losses[0] < 3.0  # log(10) = 2.30
    assert losses[-1] < losses[0] - 0.05
    assert max(losses) <= losses[0]


@pytest.mark.parametrize("shortcut", ["", "Pool", "avg"])
def test_wide_resnet_refuses_other_shortcuts(shortcut: str) -> None:
    with pytest.raises(ValueError, match=f"^shortcut must be pool or conv, got {shortcut}$"):
        wide_resnet(shortcut=shortcut)
