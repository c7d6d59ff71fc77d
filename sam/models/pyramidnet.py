"""PyramidNet with bottlenecks: Han et al. (2017), Deep Pyramidal Residual Networks.

Three stages of n blocks; depth 9n + 2. The width grows by alpha / 3n from block to block (additive, Eq. 3 of
Han et al.), up to width + alpha. A block has 4 times its width as output channels. Shortcuts have no
parameters: average pooling at the start of a stage, zeros for the new channels. In a block, BN comes before
the first convolution and after each convolution; there is no ReLU before the first one. The network ends
with BN and ReLU before the pooling.
shakedrop=True adds the gates of Yamada et al. (2018), see gates.ShakeDrop: block l of L = 3n keeps its
branch with probability 1 - 0.5 l / L. With depth 272 and alpha 200, this is the SAM paper's
PyramidNet+ShakeDrop, the only PyramidNet of the released code.
That code departs from Han et al., and so does this file: widths are rounded, not truncated. At depth 272 and
alpha 200 this gives 26.21 M parameters instead of 26.05 M. Initialisation: see layers.initialise.
"""

from torch import Tensor, nn
from torch.nn import functional

from sam.models.gates import ShakeDrop
from sam.models.layers import PooledShortcut, blocks_per_stage, conv1x1, conv3x3, initialise

EXPANSION = 4
FINAL_KEEP_PROBABILITY = 0.5


class PyramidNetBlock(nn.Module):
    """BN - conv 1 x 1 - BN - ReLU - conv 3 x 3 - BN - ReLU - conv 1 x 1 - BN - gate, plus the shortcut.

    Args:
        in_channels: Input channels.
        width: Channels of the first two convolutions; the third has EXPANSION times as many.
        stride: Stride of the 3 x 3 convolution and the shortcut.
        gate: The last layer of the branch.
    """

    def __init__(self, in_channels: int, width: int, stride: int, gate: nn.Module) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.branch = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            conv1x1(in_channels, width),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            conv3x3(width, width, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            conv1x1(width, out_channels),
            nn.BatchNorm2d(out_channels),
            gate,
        )
        self.shortcut = PooledShortcut(out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, EXPANSION * width, H / stride, W / stride]."""
        shortcut: Tensor = self.shortcut(x)
        residual: Tensor = self.branch(x)
        return shortcut + residual


class PyramidNet(nn.Module):
    """A PyramidNet of depth 9n + 2.

    Args:
        depth: 9n + 2, such as 110, 272.
        width: Channels of the stem; 16 in the paper.
        in_channels: Channels of an image.
        num_classes: Length of the logits.
        alpha: Width of the last block minus the width of the stem, > 0; 200 in the SAM paper.
        shakedrop: Whether branches end with a ShakeDrop gate.
        init: Initialisation of the weights, see layers.initialise.

    Raises:
        ValueError: If the depth is not 9n + 2, or alpha is not above 0.
    """

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        in_channels: int,
        num_classes: int,
        alpha: float = 200,
        shakedrop: bool = False,
        init: str = "released_code",
    ) -> None:
        super().__init__()
        num_blocks = blocks_per_stage(depth, layers_per_block=3, other_layers=2, example=272)
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, such as 200, got {alpha}")
        self.conv = conv3x3(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        blocks = []
        channels = width
        for number in range(1, 3 * num_blocks + 1):
            share = number / (3 * num_blocks)
            block_width = round(width + alpha * share)
            stride = 2 if number in (num_blocks + 1, 2 * num_blocks + 1) else 1
            gate = ShakeDrop(1 - (1 - FINAL_KEEP_PROBABILITY) * share) if shakedrop else nn.Identity()
            blocks.append(PyramidNetBlock(channels, block_width, stride, gate))
            channels = EXPANSION * block_width
        self.blocks = nn.Sequential(*blocks)
        self.bn2 = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self, init)

    def forward(self, images: Tensor) -> Tensor:
        """Map float [N, C, H, W] to logits [N, num_classes]."""
        x = self.blocks(self.bn1(self.conv(images)))
        logits: Tensor = self.classifier(functional.relu(self.bn2(x)).mean((2, 3)))
        return logits
