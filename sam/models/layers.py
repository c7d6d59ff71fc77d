"""Shared parts of the residual networks for small images: convolutions, shortcuts, depths, initialisation."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """Return a 3 x 3 convolution that keeps the size at stride 1 and halves it, rounded up, at stride 2."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=bias)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """Return a 1 x 1 convolution with the sizes of conv3x3."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias)


def pad_channels(images: Tensor, num_channels: int) -> Tensor:
    """Append channels of zeros until there are num_channels; [N, c, H, W] to [N, num_channels, H, W]."""
    return functional.pad(images, (0, 0, 0, 0, 0, num_channels - images.shape[1]))


class PooledShortcut(nn.Module):
    """The shortcut without parameters: averages over squares of pixels, zeros for the new channels.

    If the image size is odd, the squares at the lower and right edge are cut off, so that the result has the
    size of conv3x3.

    Args:
        out_channels: Number of channels of the result; at least the number of channels of the input.
        stride: Side of a square in pixels; 1 does not average.
    """

    def __init__(self, out_channels: int, stride: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c, H, W] to [N, out_channels, H / stride, W / stride]."""
        if self.stride > 1:
            x = functional.avg_pool2d(x, self.stride, ceil_mode=True)
        return pad_channels(x, self.out_channels)


def blocks_per_stage(depth: int, layers_per_block: int, other_layers: int, example: int) -> int:
    """Return n, the blocks in each of three stages, of depth = 3 n * layers_per_block + other_layers.

    Args:
        depth: Depth of the network.
        layers_per_block: Number of layers that the depth counts in each block.
        other_layers: Number of layers that the depth counts outside the blocks.
        example: A valid depth, for the error message.

    Raises:
        ValueError: If there is no such n >= 1.
    """
    num_blocks, rest = divmod(depth - other_layers, 3 * layers_per_block)
    if rest or num_blocks < 1:
        formula = f"{3 * layers_per_block}n + {other_layers}"
        raise ValueError(f"depth must be {formula} with n >= 1, such as {example}, got {depth}")
    return num_blocks


def block_shapes(
    in_channels: int, stage_widths: Sequence[int], num_blocks: int
) -> Iterator[tuple[int, int, int]]:
    """Yield input channels, output channels and stride of every block.

    Each stage except the first begins with stride 2.

    Args:
        in_channels: Input channels of the first stage.
        stage_widths: Output channels of the blocks of each stage.
        num_blocks: Number of blocks in each stage.
    """
    for stage, width in enumerate(stage_widths):
        for number in range(num_blocks):
            yield in_channels, width, 2 if stage > 0 and number == 0 else 1
            in_channels = width


@torch.no_grad()
def initialise(
    model: nn.Module, init: str = "released_code", fan: Literal["fan_out", "fan_in"] = "fan_out"
) -> None:
    """Draw the weights as the released code of the SAM paper does, or keep torch's initialisation.

    released_code: the weights of convolutions are normal with variance 2 / fan. Those of the classifier are
    uniform within +-1 / sqrt(fan), where fan_out is the number of classes and fan_in that of features. All
    biases are 0. (The released code uses fan_out.)

    torch: all weights and biases are uniform within +-1 / sqrt(fan_in). For a convolution, this is a variance
    of 1 / (3 fan_in). The cost of this choice is not known. The authors of the released code report that the
    default of their framework, which is different, costs about 0.5 points of error on CIFAR-100.

    In both cases, batch norm begins with weight 1 and bias 0.

    Args:
        model: The network; its convolutions and linear layers are initialised in their order.
        init: released_code or torch.
        fan: The fan of released_code. fan_in keeps the size of signals constant from layer to layer at any
            width; networks without batch norm need it.

    Raises:
        ValueError: If init is unknown.
    """
    if init not in ("released_code", "torch"):
        raise ValueError(f"init must be released_code or torch, got {init}")
    if init == "torch":
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=fan, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.out_features if fan == "fan_out" else module.in_features)
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)
