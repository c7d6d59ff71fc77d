"""The wide "ResNet-32" of the noisy-label protocol: Jiang et al. (2020), Beyond Synthetic Noise.

The SAM paper trains "ResNet-32" on noisy labels and cites Jiang et al. Under that name, their public code
(MentorMix) builds a pre-activation network in the style of He et al. (2016), Identity Mappings. It has a stem
of 64 channels, three stages of five blocks with 128, 256 and 512 channels, leaky ReLU of slope 0.1, and
shortcuts without parameters (average pooling, zeros for the new channels). Its convolutions have 29.42 M
parameters; the ResNet-32 of He et al. (cifar_resnet) has 0.46 M. The SAM paper does not say which of the two
it used. We infer this one: the paper's error rates are below those of the small network on clean labels.

Departures from that code; we expect little effect of each:
- zeros are appended after the old channels, not half before and half after them (the same network with its
  channels in another order);
- the first block applies BN, then ReLU, like the other blocks; that code applies ReLU first;
- batch norm adds 1e-5 to the variance, not 1e-3;
- the classifier is uniform within +-1 / sqrt(num_classes), not +-sqrt(3 / 512), see layers.initialise.
  Convolutions have the same initialisation.
"""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from sam.models.layers import block_shapes, blocks_per_stage, conv3x3, initialise
from sam.models.wide_resnet import WideResNetBlock


class WideCifarResNet(nn.Module):
    """A pre-activation ResNet of depth 6n + 2 with leaky ReLU.

    Args:
        depth: 6n + 2; 32 in the protocol.
        width: Channels of the stem, 64 in the protocol; the stages have 2, 4 and 8 times this number.
        in_channels: Channels of an image.
        num_classes: Length of the logits.
        init: Initialisation of the weights, see layers.initialise.

    Raises:
        ValueError: If the depth is not 6n + 2.
    """

    def __init__(
        self, *, depth: int, width: int, in_channels: int, num_classes: int, init: str = "released_code"
    ) -> None:
        super().__init__()
        num_blocks = blocks_per_stage(depth, layers_per_block=2, other_layers=2, example=32)
        self.activation = partial(functional.leaky_relu, negative_slope=0.1)
        self.conv = conv3x3(in_channels, width)
        shapes = block_shapes(width, (2 * width, 4 * width, 8 * width), num_blocks)
        self.blocks = nn.Sequential(
            *(
                WideResNetBlock(*shape, number == 0, activation=self.activation)
                for number, shape in enumerate(shapes)
            )
        )
        self.bn = nn.BatchNorm2d(8 * width)
        self.classifier = nn.Linear(8 * width, num_classes)
        initialise(self, init)

    def forward(self, images: Tensor) -> Tensor:
        """Map float [N, C, H, W] to logits [N, num_classes]."""
        x = self.blocks(self.conv(images))
        logits: Tensor = self.classifier(self.activation(self.bn(x)).mean((2, 3)))
        return logits
