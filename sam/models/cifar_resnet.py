"""ResNet for small images: He et al. (2016), Deep Residual Learning, section 4.2.

Three stages of n blocks with width, 2 width and 4 width channels on 32, 16 and 8 pixels; depth 6n + 2.
Shortcuts are the paper's option A: every second pixel, zeros for the new channels, no parameters.
Initialisation: see layers.initialise. Departure: He et al. use the fan-in of convolutions. The difference is
a factor sqrt(2), at the two strided convolutions only.

skip=False is the "no short" network of Li et al. (2018), Visualizing the Loss Landscape of Neural Nets. The
SAM paper draws its ResNet-56 in Figure 1. It has the same layers and parameters, but adds no shortcut.
"""

from torch import Tensor, nn
from torch.nn import functional

from sam.models.layers import block_shapes, blocks_per_stage, conv3x3, initialise, pad_channels


class CifarResNetBlock(nn.Module):
    """conv - BN - ReLU - conv - BN, plus the shortcut if there is one, then ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, skip: bool = True) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.out_channels = out_channels
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        residual: Tensor = functional.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        if self.skip:
            residual = pad_channels(x[:, :, :: self.stride, :: self.stride], self.out_channels) + residual
        return functional.relu(residual)


class CifarResNet(nn.Module):
    """A ResNet of depth 6n + 2.

    Args:
        depth: 6n + 2, such as 20, 32, 44, 56.
        width: Channels of the first stage; 16 in the paper.
        in_channels: Channels of an image.
        num_classes: Length of the logits.
        skip: Whether blocks have shortcuts.
        init: Initialisation of the weights, see layers.initialise.

    Raises:
        ValueError: If the depth is not 6n + 2.
    """

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        in_channels: int,
        num_classes: int,
        skip: bool = True,
        init: str = "released_code",
    ) -> None:
        super().__init__()
        num_blocks = blocks_per_stage(depth, layers_per_block=2, other_layers=2, example=20)
        self.conv = conv3x3(in_channels, width)
        self.bn = nn.BatchNorm2d(width)
        shapes = block_shapes(width, (width, 2 * width, 4 * width), num_blocks)
        self.blocks = nn.Sequential(*(CifarResNetBlock(*shape, skip=skip) for shape in shapes))
        self.classifier = nn.Linear(4 * width, num_classes)
        initialise(self, init)

    def forward(self, images: Tensor) -> Tensor:
        """Map float [N, C, H, W] to logits [N, num_classes]."""
        x = functional.relu(self.bn(self.conv(images)))
        logits: Tensor = self.classifier(self.blocks(x).mean((2, 3)))
        return logits
