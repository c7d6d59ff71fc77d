"""WideResNet: Zagoruyko and Komodakis (2016), in the form of the released code of the SAM paper.

Three stages of n pre-activation blocks with 16k, 32k and 64k channels; depth 6n + 4, widening factor k.
Departures of that code from Zagoruyko and Komodakis, followed here:
- shortcuts without parameters, average pooling and zeros for the new channels, instead of 1 x 1
  convolutions: WRN-28-10 has 36.22 M parameters instead of 36.48 M;
- the first block normalises before the shortcut branches off.
No dropout. Initialisation: see layers.initialise.
"""

from torch import Tensor, nn
from torch.nn import functional

from sam.models.layers import conv3x3, initialise, pad_channels


class Block(nn.Module):
    """BN - ReLU - conv - BN - ReLU - conv, plus the shortcut."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, activate_before_shortcut: bool
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.stride = stride
        self.out_channels = out_channels
        self.activate_before_shortcut = activate_before_shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        activated = functional.relu(self.bn1(x))
        shortcut = activated if self.activate_before_shortcut else x
        if self.stride > 1:
            shortcut = functional.avg_pool2d(shortcut, self.stride)
        residual: Tensor = self.conv2(functional.relu(self.bn2(self.conv1(activated))))
        return pad_channels(shortcut, self.out_channels) + residual


class WideResNet(nn.Module):
    """A WideResNet of depth 6n + 4.

    Args:
        depth: 6n + 4, such as 16, 28, 40.
        width: The widening factor k.
        in_channels: Channels of an image.
        num_classes: Length of the logits.

    Raises:
        ValueError: If the depth is not 6n + 4.
    """

    def __init__(self, *, depth: int, width: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth must be 6n + 4 with n >= 1, such as 28, got {depth}")
        self.conv = conv3x3(in_channels, 16)
        blocks: list[nn.Module] = []
        channels = 16
        for stage, stage_width in enumerate((16 * width, 32 * width, 64 * width)):
            for number in range((depth - 4) // 6):
                stride = 2 if number == 0 and stage > 0 else 1
                blocks.append(Block(channels, stage_width, stride, stage == 0 and number == 0))
                channels = stage_width
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map float [N, C, H, W] to logits [N, num_classes]."""
        x = self.blocks(self.conv(images))
        logits: Tensor = self.classifier(functional.relu(self.bn(x)).mean((2, 3)))
        return logits
