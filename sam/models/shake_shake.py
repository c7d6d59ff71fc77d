"""Shake-Shake network: Gastaldi (2017), Shake-Shake regularization, as in the released code of the SAM paper.

Three stages of n blocks with width, 2 width and 4 width channels, after a stem of 16 channels; depth 6n + 2.
Each block mixes two branches with random weights, see gates.ShakeShake. Depth 26 and width 96 are Gastaldi's
"26 2x96d" and the SAM paper's "WRN 26-2x6": 26.2 M parameters.
If the number of channels changes, the shortcut is two parallel 1 x 1 convolutions, then BN. The second one
gets the image moved by one pixel, so at stride 2 the two use different pixels. There is no BN at the end of
the network.
Each image has its own weights in the forward and backward pass: Gastaldi's "Shake-Shake-Image".
Initialisation: see layers.initialise.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sam.models.gates import ShakeShake
from sam.models.layers import block_shapes, blocks_per_stage, conv1x1, conv3x3, initialise


class TwoPathShortcut(nn.Module):
    """Two 1 x 1 convolutions, one of the image and one of the image moved by a pixel, then BN."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv1x1(in_channels, out_channels // 2, stride)
        self.conv2 = conv1x1(in_channels, out_channels // 2, stride)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        moved = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        result: Tensor = self.bn(torch.cat([self.conv1(x), self.conv2(moved)], 1))
        return result


def branch(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Return ReLU - conv - BN - ReLU - conv - BN."""
    return nn.Sequential(
        nn.ReLU(),
        conv3x3(in_channels, out_channels, stride),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        conv3x3(out_channels, out_channels),
        nn.BatchNorm2d(out_channels),
    )


class ShakeShakeBlock(nn.Module):
    """The shortcut plus two branches with random weights."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.branch1 = branch(in_channels, out_channels, stride)
        self.branch2 = branch(in_channels, out_channels, stride)
        self.gate = ShakeShake()
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = TwoPathShortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        shortcut: Tensor = self.shortcut(x)
        residual: Tensor = self.gate(self.branch1(x), self.branch2(x))
        return shortcut + residual


class ShakeShakeNet(nn.Module):
    """A Shake-Shake network of depth 6n + 2.

    Args:
        depth: 6n + 2, such as 26.
        width: Channels of the first stage, an even number; 96 in the SAM paper.
        in_channels: Channels of an image.
        num_classes: Length of the logits.
        init: Initialisation of the weights, see layers.initialise.

    Raises:
        ValueError: If the depth is not 6n + 2, or the width is odd.
    """

    def __init__(
        self, *, depth: int, width: int, in_channels: int, num_classes: int, init: str = "released_code"
    ) -> None:
        super().__init__()
        num_blocks = blocks_per_stage(depth, layers_per_block=2, other_layers=2, example=26)
        if width % 2:
            raise ValueError(f"width must be even, since shortcuts have two halves, got {width}")
        self.conv = conv3x3(in_channels, 16)
        self.bn = nn.BatchNorm2d(16)
        shapes = block_shapes(16, (width, 2 * width, 4 * width), num_blocks)
        self.blocks = nn.Sequential(*(ShakeShakeBlock(*shape) for shape in shapes))
        self.classifier = nn.Linear(4 * width, num_classes)
        initialise(self, init)

    def forward(self, images: Tensor) -> Tensor:
        """Map float [N, C, H, W] to logits [N, num_classes]."""
        x = self.blocks(self.bn(self.conv(images)))
        logits: Tensor = self.classifier(functional.relu(x).mean((2, 3)))
        return logits
