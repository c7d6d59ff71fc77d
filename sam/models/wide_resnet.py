"""WideResNet: Zagoruyko and Komodakis (2016), in the form of the released code of the SAM paper.

Three stages of n pre-activation blocks with 16k, 32k and 64k channels; depth 6n + 4, widening factor k.
That code departs from Zagoruyko and Komodakis, and so does this file:
- shortcuts have no parameters: average pooling and zeros for the new channels instead of 1 x 1
  convolutions. WRN-28-10 has 36.22 M parameters instead of 36.48 M;
- in the first block, the shortcut starts after the first BN and ReLU.
Initialisation: see layers.initialise.

With dropout > 0, each block drops entries between its ReLU and its second convolution, as in Zagoruyko and
Komodakis (section 3.3), who use 0.3 for CIFAR and 0.4 for SVHN. The SAM paper uses no dropout.

shortcut="conv" is the form of Zagoruyko and Komodakis. If a block changes the shape, its shortcut is a 1 x 1
convolution of the input after BN and ReLU. (With k = 1, the first stage has no such block.) All other
shortcuts start before the first BN, in the first block too.

batch_norm=False is the network of the SAM paper's Figure 3 (WRN-40-10). The paper does not say how it was
made trainable. Here all norms are left out, convolutions have a bias, weights are drawn with fan_in, and each
of the d = 3n residual branches is multiplied by 1 / sqrt(d), as in Hayou et al. (2021), Stable ResNet
(uniform scaling). De and Smith (2020) show that batch norm shrinks branches by about this factor; in their
SkipInit the factor is trained, here it is constant. On average over random weights, a branch then adds at
most 2/d of the second moment of its input. Over all branches, the second moment grows by less than
(1 + 2/d)^d < e^2, at any depth. Expect a smaller best learning rate than with batch norm. (The weights of
init="torch" are smaller, so branches add less.)
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from sam.models.layers import PooledShortcut, block_shapes, blocks_per_stage, conv1x1, conv3x3, initialise


def norm(num_channels: int, batch_norm: bool) -> nn.Module:
    """Return a batch norm, or the identity."""
    return nn.BatchNorm2d(num_channels) if batch_norm else nn.Identity()


class WideResNetBlock(nn.Module):
    """BN - ReLU - conv - BN - ReLU - dropout - conv, plus the shortcut.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Stride of the first convolution and the shortcut.
        activate_before_shortcut: Whether the shortcut starts after the first BN and ReLU.
        convolve_shortcut: Whether the shortcut is a 1 x 1 convolution instead of having no parameters.
        batch_norm: False leaves BN out and gives the convolutions a bias.
        branch_scale: Factor of the branch before it is added to the shortcut.
        dropout: Probability of dropping an entry, 0 <= dropout < 1; 0 makes no draw.
        activation: The activation function; ReLU by default.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        activate_before_shortcut: bool,
        *,
        convolve_shortcut: bool = False,
        batch_norm: bool = True,
        branch_scale: float = 1.0,
        dropout: float = 0.0,
        activation: Callable[[Tensor], Tensor] = functional.relu,
    ) -> None:
        super().__init__()
        self.bn1 = norm(in_channels, batch_norm)
        self.conv1 = conv3x3(in_channels, out_channels, stride, bias=not batch_norm)
        self.bn2 = norm(out_channels, batch_norm)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3x3(out_channels, out_channels, bias=not batch_norm)
        self.shortcut: nn.Module = PooledShortcut(out_channels, stride)
        if convolve_shortcut:
            self.shortcut = conv1x1(in_channels, out_channels, stride, bias=not batch_norm)
        self.activate_before_shortcut = activate_before_shortcut
        self.branch_scale = branch_scale
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        activated = self.activation(self.bn1(x))
        shortcut: Tensor = self.shortcut(activated if self.activate_before_shortcut else x)
        hidden = self.activation(self.bn2(self.conv1(activated)))
        residual: Tensor = self.conv2(self.dropout(hidden))
        return torch.add(shortcut, residual, alpha=self.branch_scale)


class WideResNet(nn.Module):
    """A WideResNet of depth 6n + 4.

    Args:
        depth: 6n + 4, such as 16, 28, 40.
        width: The widening factor k.
        in_channels: Channels of an image.
        num_classes: Length of the logits.
        shortcut: "pool" has no parameters; "conv" uses 1 x 1 convolutions.
        batch_norm: False leaves all batch norms out.
        dropout: Probability of dropping an entry before the second convolution of a block.
        init: Initialisation of the weights, see layers.initialise.

    Raises:
        ValueError: If the depth is not 6n + 4, or the shortcut is unknown.
    """

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        in_channels: int,
        num_classes: int,
        shortcut: str = "pool",
        batch_norm: bool = True,
        dropout: float = 0.0,
        init: str = "released_code",
    ) -> None:
        super().__init__()
        num_blocks = blocks_per_stage(depth, layers_per_block=2, other_layers=4, example=28)
        if shortcut not in ("pool", "conv"):
            raise ValueError(f"shortcut must be pool or conv, got {shortcut}")
        self.conv = conv3x3(in_channels, 16, bias=not batch_norm)
        branch_scale = 1.0 if batch_norm else (3 * num_blocks) ** -0.5
        shapes = block_shapes(16, (16 * width, 32 * width, 64 * width), num_blocks)
        blocks = []
        for number, (from_channels, to_channels, stride) in enumerate(shapes):
            convolve = shortcut == "conv" and from_channels != to_channels
            block = WideResNetBlock(
                from_channels,
                to_channels,
                stride,
                activate_before_shortcut=convolve or (shortcut == "pool" and number == 0),
                convolve_shortcut=convolve,
                batch_norm=batch_norm,
                branch_scale=branch_scale,
                dropout=dropout,
            )
            blocks.append(block)
        self.blocks = nn.Sequential(*blocks)
        self.bn = norm(64 * width, batch_norm)
        self.classifier = nn.Linear(64 * width, num_classes)
        initialise(self, init, "fan_out" if batch_norm else "fan_in")

    def forward(self, images: Tensor) -> Tensor:
        """Map float [N, C, H, W] to logits [N, num_classes]."""
        x = self.blocks(self.conv(images))
        logits: Tensor = self.classifier(functional.relu(self.bn(x)).mean((2, 3)))
        return logits
