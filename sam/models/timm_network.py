"""Any network of timm (Wightman 2019, PyTorch Image Models): the ResNets and EfficientNets of the SAM paper.

ResNet-50, -101 and -152 of Table 2 are timm's resnet50, resnet101 and resnet152. As in the released code, the
3 x 3 convolution of a bottleneck has the stride, and the last batch norm of a branch begins at 0. The
EfficientNets of Table 3 are tf_efficientnet_b7.ra_in1k (RandAugment) and tf_efficientnet_l2.ns_jft_in1k_475
(Noisy Student at 475 pixels), with TensorFlow's padding and epsilon.

Dropout and stochastic depth have timm's defaults. Most networks have none of them by default. This includes
EfficientNet, although it was first trained with both. Initialisation is timm's.

Functions import timm when they need it: the import takes a second, and most runs do not use timm.
"""

import difflib
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from sam.models.timm_weights import head_layers, load_weights
from sam.system.errors import first_line

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

HUB = "hub"


class TimmNetwork(nn.Module):
    """A network of timm, with random or trained weights.

    Trained weights keep their head (the last linear layer) if it gives num_classes logits, as in fine-tuning
    on ImageNet itself. Otherwise the head gets torch's initialisation of a linear layer: uniform within
    +-1 / sqrt(number of inputs). (timm draws EfficientNet's head within +-1 / sqrt(num_classes). With ten
    classes, the loss then begins at 13, and SAM destroys the features of EfficientNet-Lite0 within an epoch,
    at every rho tried.)

    Args:
        timm_name: A name that timm knows, with or without the tag of trained weights, such as resnet50 or
            tf_efficientnet_b7.ra_in1k.
        in_channels: Channels of an image.
        num_classes: Length of the logits.
        weights: None for random weights. "hub" for the trained weights of timm_name, which timm downloads and
            caches. Otherwise the path of a file, see timm_weights.load_weights.
        freeze_statistics: In training, batch norm uses its running averages and does not change them, as in
            the SAM paper's fine-tuning (footnote 11). Its weight and bias are still trained.
        batch_norm_decay: Weight of the old running averages of batch norm, 0 <= decay < 1: 1 minus torch's
            momentum. The released code of the SAM paper has 0.99 for EfficientNet. None keeps that of timm,
            which is 0.9 for most networks.
        input_size: Images of another size are resized to this height and width in pixels (bicubic,
            antialiased), on their device. None does not resize.

    Raises:
        ValueError: If timm does not know the name, or the weights do not fit.
        OSError: If the weights do not exist or cannot be downloaded.
    """

    def __init__(
        self,
        *,
        timm_name: str,
        in_channels: int,
        num_classes: int,
        weights: str | None = None,
        freeze_statistics: bool = False,
        batch_norm_decay: float | None = None,
        input_size: int | None = None,
    ) -> None:
        import timm

        super().__init__()
        options: dict[str, Any] = {"in_chans": in_channels, "num_classes": num_classes}
        published = pretrained_config(timm_name)
        # A network of fixed input size, such as a vision transformer, learns an embedding per image position.
        if published.fixed_input_size and input_size is not None:
            options["img_size"] = input_size
        has_head = True
        if weights == HUB:
            self.network: nn.Module = fetch(timm_name, published.input_size[0], options)
            has_head = published.num_classes == num_classes
        else:
            self.network = timm.create_model(timm_name, **options)
        if weights not in (None, HUB):
            has_head = load_weights(self.network, str(weights))
        if not has_head:
            for layer in head_layers(self.network):
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
        if batch_norm_decay is not None:
            for layer in self.network.modules():
                if isinstance(layer, _BatchNorm):
                    layer.momentum = 1 - batch_norm_decay
        self._name = timm_name
        self._input_size = input_size
        self._fixed_size = published.input_size[-1] if published.fixed_input_size else None
        self._freeze_statistics = freeze_statistics
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Map float [N, C, H, W] to logits [N, num_classes].

        Raises:
            ValueError: If the network has a fixed input size, and the images have another size.
        """
        height, width = images.shape[-2:]
        self.check(height, width)
        size = self._input_size
        if size is not None and (height, width) != (size, size):
            images = functional.interpolate(images, (size, size), mode="bicubic", antialias=True)
        logits: Tensor = self.network(images)
        return logits

    def check(self, height: int, width: int) -> None:
        """Check that the network accepts images of this size.

        Raises:
            ValueError: If the network has a fixed input size, and the images have another size.
        """
        fixed = self._fixed_size
        if self._input_size is None and fixed is not None and (height, width) != (fixed, fixed):
            raise ValueError(
                f"{self._name} takes images of {fixed} pixels a side, got {height} x {width}; resize them "
                f"with model.input_size={fixed}"
            )

    def train(self, mode: bool = True) -> "TimmNetwork":
        """Set the mode of all layers; layers with frozen running averages stay in evaluation mode."""
        super().train(mode)
        if self._freeze_statistics:
            for module in self.network.modules():
                if getattr(module, "running_var", None) is not None:
                    module.training = False
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep few activations in the forward pass; compute the others again in the backward pass.

        The gradients stay the same. The backward pass updates the running averages of batch norm a second
        time; optim.running_statistics restores the values after the clean forward pass.

        Args:
            enable: False keeps all activations again.

        Raises:
            ValueError: If timm has no gradient checkpointing for this network.
        """
        try:
            self.network.set_grad_checkpointing(enable)  # type: ignore[operator]
        except AssertionError as error:
            raise ValueError(
                f"timm has no gradient checkpointing for {self._name}; use runtime.grad_checkpointing=false"
            ) from error


def pretrained_statistics(timm_name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel with which timm normalises the images of a network.

    If timm has none for the network, these are ImageNet's. Weights from other sources may need others.

    Args:
        timm_name: A name that timm knows, with or without a tag.

    Raises:
        ValueError: If timm does not know the name.
    """
    published = pretrained_config(timm_name)
    return tuple(published.mean), tuple(published.std)


def pretrained_config(timm_name: str) -> "PretrainedCfg":
    """Return timm's description of the trained weights of a network.

    Raises:
        ValueError: If timm does not know the name or its tag.
    """
    import timm
    from timm.models import PretrainedCfg

    architecture, _, tag = timm_name.partition(".")
    if not timm.is_model(timm_name):
        near = ", ".join(difflib.get_close_matches(architecture, timm.list_models(), 5, cutoff=0.0))
        command = """python -c "import timm; print(*timm.list_models(), sep='\\n')" """.strip()
        raise ValueError(
            f"timm_name={timm_name} is unknown to timm; similar names are {near}; to list all: {command}"
        )
    try:
        return timm.get_pretrained_cfg(timm_name) or PretrainedCfg()
    except RuntimeError as error:
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise ValueError(
            f"timm_name={timm_name}: timm has no weights {tag} for {architecture}; allowed are {tags}"
        ) from error


def fetch(timm_name: str, trained_channels: int, options: dict[str, Any]) -> nn.Module:
    """Return a network with timm's trained weights, from timm's cache or from the internet.

    Args:
        timm_name: A name that timm knows, with or without a tag.
        trained_channels: Number of image channels that the weights expect.
        options: Keyword arguments of timm.create_model, with in_chans.

    Raises:
        ValueError: If in_chans is another number of channels.
        OSError: If there are no such weights or they cannot be downloaded.
    """
    import timm

    if options["in_chans"] != trained_channels:
        raise ValueError(
            f"weights=hub: the weights of {timm_name} expect images with {trained_channels} channels, the "
            f"images have {options['in_chans']}; use model.weights=null"
        )
    try:
        return timm.create_model(timm_name, pretrained=True, **options)
    except Exception as error:  # the hub's client also raises the errors of its HTTP library
        raise OSError(
            f"weights=hub: timm could not download {timm_name} ({first_line(error)}); name a file on this "
            "machine with model.weights=PATH, or check the connection"
        ) from error
