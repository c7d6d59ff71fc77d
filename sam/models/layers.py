"""What the residual networks for small images share: convolutions, shortcuts, depths, initialisation."""

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
    """The shortcut without parameters: average over squares of pixels, zeros for the new channels.

    Squares at the lower and right edge of an odd size hold what is left of it, so that the size agrees with
    conv3x3.

    Args:
        out_channels: At least as many as come in.
        stride: Side of a square in pixels; 1 leaves the pixels alone.
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
        depth: Of the network.
        layers_per_block: Convolutions that a block counts for.
        other_layers: Layers outside the blocks that the architecture counts.
        example: A depth for the message.

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
    """Yield input channels, output channels and stride of every block; each stage but the first halves.

    Args:
        in_channels: What enters the first stage.
        stage_widths: Output channels of the blocks of each stage.
        num_blocks: In each stage.
    """
    for stage, width in enumerate(stage_widths):
        for number in range(num_blocks):
            yield in_channels, width, 2 if stage > 0 and number == 0 else 1
            in_channels = width


@torch.no_grad()
def initialise(
    model: nn.Module, init: str = "released_code", fan: Literal["fan_out", "fan_in"] = "fan_out"
) -> None:
    """Draw the weights as the released code of the SAM paper does, or leave them as the framework drew them.

    released_code. Convolutions: normal with variance 2 / fan, bias 0. The classifier: uniform within
    +-1 / sqrt(fan), bias 0; its fan_out is the number of classes, its fan_in that of features. (The released
    code takes fan_out.)

    torch. Weights and biases of both: uniform within +-1 / sqrt(fan_in); for a convolution that is a variance
    of 1 / (3 fan_in). What this costs was measured by the authors of the released code only, who report that
    their framework's default, another one, costs about 0.5 points of error on CIFAR-100.

    Batch norm begins at weight 1 and bias 0 either way.

    Args:
        model: Its convolutions and linear layers are drawn anew, in their order.
        init: released_code or torch.
        fan: What variance and range of released_code depend on. fan_in keeps the size of signals from layer
            to layer, whatever the widths, for networks in which no batch norm does so.

    Raises:
        ValueError: If init is another one.
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
