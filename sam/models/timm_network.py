"""Any network of timm (Wightman 2019, PyTorch Image Models): the ResNets and EfficientNets of the SAM paper.

ResNet-50, -101 and -152 of Table 2 are timm's resnet50, resnet101 and resnet152: as in the released code the
bottleneck has its stride on the 3 x 3 convolution, and the last batch norm of a branch begins at 0. The
EfficientNets of Table 3 are tf_efficientnet_b7.ra_in1k (RandAugment) and tf_efficientnet_l2.ns_jft_in1k_475
(Noisy Student at 475 pixels), with TensorFlow's padding and epsilon.

Dropout and stochastic depth are timm's defaults, which is none at all for most networks, EfficientNet among
them, though it was first trained with both. Initialisation is timm's.

timm itself is imported where it is used: it takes a second to load, and most runs need none of its networks.
"""

import difflib
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional

from sam.models.timm_weights import head_layers, load_weights

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

HUB = "hub"


class TimmNetwork(nn.Module):
    """A network of timm, fresh or trained.

    Trained weights keep their head (the last linear layer) if it gives num_classes logits, as in fine-tuning
    on ImageNet itself; otherwise the head is fresh, and drawn as torch draws a linear layer, uniform within
    +-1 / sqrt(its inputs). (timm draws an EfficientNet's within +-1 / sqrt(num_classes): with ten classes the
    loss begins at 13, and SAM then kills EfficientNet-Lite0's features within an epoch, at every rho tried.)

    Args:
        timm_name: Any name that timm knows, with the tag of trained weights or without, such as resnet50 or
            tf_efficientnet_b7.ra_in1k.
        in_channels: Channels of an image.
        num_classes: Length of the logits.
        weights: None for fresh ones; hub for the trained ones of timm_name, which timm fetches from the
            internet and caches; else a file, see timm_weights.load_weights.
        freeze_statistics: Batch norm normalises by its running averages in training too, and leaves them
            alone, as in the SAM paper's fine-tuning (footnote 11); its weight and bias go on learning.
        input_size: Images of another size are resized to so many pixels a side (bicubic, antialiased), on
            their device. None takes them as they come.

    Raises:
        ValueError: If timm does not know the name, or the weights do not fit.
        OSError: If the weights are not there or cannot be fetched.
    """

    def __init__(
        self,
        *,
        timm_name: str,
        in_channels: int,
        num_classes: int,
        weights: str | None = None,
        freeze_statistics: bool = False,
        input_size: int | None = None,
    ) -> None:
        import timm

        super().__init__()
        options: dict[str, Any] = {"in_chans": in_channels, "num_classes": num_classes}
        published = pretrained_config(timm_name)
        # Such networks, vision transformers for example, learn one embedding for every place in an image.
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
        self._name = timm_name
        self._input_size = input_size
        self._fixed_size = published.input_size[-1] if published.fixed_input_size else None
        self._freeze_statistics = freeze_statistics
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Map float [N, C, H, W] to logits [N, num_classes].

        Raises:
            ValueError: If the network takes images of one size only, and these have another one.
        """
        height, width = images.shape[-2:]
        self.check(height, width)
        size = self._input_size
        if size is not None and (height, width) != (size, size):
            images = functional.interpolate(images, (size, size), mode="bicubic", antialias=True)
        logits: Tensor = self.network(images)
        return logits

    def check(self, height: int, width: int) -> None:
        """Check that images are of a size that the network takes.

        Raises:
            ValueError: If it takes images of one size only, and these have another one.
        """
        fixed = self._fixed_size
        if self._input_size is None and fixed is not None and (height, width) != (fixed, fixed):
            raise ValueError(
                f"{self._name} takes images of {fixed} pixels a side, got {height} x {width}; resize them "
                f"with model.input_size={fixed}"
            )

    def train(self, mode: bool = True) -> "TimmNetwork":
        """Set the mode of all layers; those with running averages stay in evaluation if these are frozen."""
        super().train(mode)
        if self._freeze_statistics:
            for module in self.network.modules():
                if getattr(module, "running_var", None) is not None:
                    module.training = False
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep few activations in the forward pass, and compute the others anew in the backward pass.

        Gradients stay the same. Running averages of batch norm move a second time, in the backward pass;
        optim.running_statistics puts back what the clean forward pass left.

        Args:
            enable: Or go back to keeping all of them.

        Raises:
            ValueError: If timm cannot do so for this network.
        """
        try:
            self.network.set_grad_checkpointing(enable)  # type: ignore[operator]
        except AssertionError as error:
            raise ValueError(
                f"timm has no gradient checkpointing for {self._name}; use runtime.grad_checkpointing=false"
            ) from error


def pretrained_statistics(timm_name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation, per channel, by which timm normalises the images of a network.

    Those of ImageNet where timm names none. A file of another origin may want others.

    Args:
        timm_name: As for TimmNetwork.

    Raises:
        ValueError: If timm does not know it.
    """
    published = pretrained_config(timm_name)
    return tuple(published.mean), tuple(published.std)


def pretrained_config(timm_name: str) -> "PretrainedCfg":
    """Return what timm knows of the weights of a network.

    Raises:
        ValueError: If timm does not know the name or its tag.
    """
    import timm
    from timm.models import PretrainedCfg

    architecture, _, tag = timm_name.partition(".")
    if not timm.is_model(timm_name):
        near = ", ".join(difflib.get_close_matches(architecture, timm.list_models(), 5, cutoff=0.0))
        command = """python -c "import timm; print(*timm.list_models(), sep='\\n')" """.strip()
        raise ValueError(f"timm_name={timm_name} is unknown to timm; near it are {near}; all: {command}")
    try:
        return timm.get_pretrained_cfg(timm_name) or PretrainedCfg()
    except RuntimeError as error:
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise ValueError(
            f"timm_name={timm_name}: timm has no weights {tag} of {architecture}; allowed are {tags}"
        ) from error


def fetch(timm_name: str, trained_channels: int, options: dict[str, Any]) -> nn.Module:
    """Return a network with the weights that timm names for it, from its cache or from the internet.

    Args:
        timm_name: As for TimmNetwork.
        trained_channels: What the weights expect.
        options: Of timm.create_model, in_chans among them.

    Raises:
        ValueError: If the images have other channels.
        OSError: If there are no such weights or they cannot be fetched.
    """
    import timm

    if options["in_chans"] != trained_channels:
        raise ValueError(
            f"weights=hub: those of {timm_name} are for images of {trained_channels} channels, these have "
            f"{options['in_chans']}; use model.weights=null"
        )
    try:
        return timm.create_model(timm_name, pretrained=True, **options)
    except Exception as error:  # the hub's client raises what its HTTP library does
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OSError(
            f"weights=hub: timm could not fetch {timm_name} ({reason}); name a file on this machine by "
            "model.weights=PATH, or check the connection"
        ) from error
