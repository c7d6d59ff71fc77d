"""ResNet for small images: He et al. (2016), Deep Residual Learning, section 4.2.

Three stages of n blocks with width, 2 width and 4 width channels on 32, 16 and 8 pixels; depth 6n + 2.
Shortcuts are the paper's option A: every second pixel, zeros for the new channels, no parameters.
Initialisation: see layers.initialise (He et al. draw convolutions with fan-in; a difference of a factor
sqrt(2) at the two strided convolutions only).
"""

from torch import Tensor, nn
from torch.nn import functional

from sam.models.layers import conv3x3, initialise, pad_channels


class Block(nn.Module):
    """conv - BN - ReLU - conv - BN, plus the shortcut, then ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        residual = functional.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        shortcut = pad_channels(x[:, :, :: self.stride, :: self.stride], self.out_channels)
        return functional.relu(shortcut + residual)


class CifarResNet(nn.Module):
    """A ResNet of depth 6n + 2.

    Args:
        depth: 6n + 2, such as 20, 32, 44, 56.
        width: Channels of the first stage; 16 in the paper.
        in_channels: Channels of an image.
        num_classes: Length of the logits.

    Raises:
        ValueError: If the depth is not 6n + 2.
    """

    def __init__(self, *, depth: int, width: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth must be 6n + 2 with n >= 1, such as 20, got {depth}")
        self.conv = conv3x3(in_channels, width)
        self.bn = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        channels = width
        for stage_width in (width, 2 * width, 4 * width):
            for number in range((depth - 2) // 6):
                stride = 2 if number == 0 and stage_width > width else 1
                blocks.append(Block(channels, stage_width, stride))
                channels = stage_width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map float [N, C, H, W] to logits [N, num_classes]."""
        x = functional.relu(self.bn(self.conv(images)))
        logits: Tensor = self.classifier(self.blocks(x).mean((2, 3)))
        return logits
