"""The keys of a model, and which of them cannot be combined."""

import dataclasses
from collections.abc import Iterator

from sam.config.setting import setting

# Depth of each architecture: (a, b, example) for depth a * n + b.
DEPTHS = {
    "cifar_resnet": (6, 2, 20),
    "wide_cifar_resnet": (6, 2, 32),
    "wide_resnet": (6, 4, 28),
    "shake_shake": (6, 2, 26),
    "pyramidnet": (9, 2, 272),
}


# The options of ModelConfig that each architecture reads.
MODEL_OPTIONS = {
    "cifar_resnet": ("depth", "width", "init", "skip"),
    "wide_cifar_resnet": ("depth", "width", "init"),
    "wide_resnet": ("depth", "width", "init", "shortcut", "batch_norm", "dropout"),
    "shake_shake": ("depth", "width", "init"),
    "pyramidnet": ("depth", "width", "init", "alpha", "shakedrop"),
    "timm": ("timm_name", "weights", "freeze_statistics", "batch_norm_decay", "input_size"),
}


# A recipe or every config sets these, so it is no mistake if the architecture does not read them.
SILENT_MODEL_OPTIONS = ("depth", "width", "shortcut")


@dataclasses.dataclass
class ModelConfig:
    """The network."""

    # Name in paths and tables.
    name: str = setting("resnet8", label=True)
    # Family of the network. It decides which of the keys below are read.
    architecture: str = setting("cifar_resnet", choices=tuple(MODEL_OPTIONS))
    # Number of layers: 6n+2 for cifar_resnet, wide_cifar_resnet and shake_shake, 6n+4 for wide_resnet, 9n+2
    # for pyramidnet. timm does not use it.
    depth: int = setting(8, at_least=8, at_most=2000)
    # Channels of the first stage (pyramidnet: of the stem). wide_resnet: the widening factor k.
    width: int = setting(16, at_least=1)
    # wide_resnet: pool (pooling and zeros, as in the released code) or conv (1 x 1 convolutions).
    shortcut: str = setting("pool", choices=("pool", "conv"))
    # wide_resnet: false for the network of the paper's Figure 3.
    batch_norm: bool = True
    # wide_resnet: probability of dropping an entry between the two convolutions of a block.
    dropout: float = setting(0.0, at_least=0, below=1)
    # cifar_resnet: false for the network without shortcuts of the paper's Figure 1.
    skip: bool = True
    # pyramidnet: channels added from the first block to the last.
    alpha: int = setting(200, at_least=1)
    # pyramidnet: ShakeDrop in every block.
    shakedrop: bool = False
    # Initial weights: released_code (He, and a uniform classifier) or torch (the defaults of torch).
    init: str = setting("released_code", choices=("released_code", "torch"))
    # Seed of the initial weights. null means the seed of the run. The released code uses the same weights in
    # every run.
    init_seed: int | None = setting(None, at_least=0, at_most=2**31 - 1)
    # timm: any name that timm knows, with or without a tag, such as tf_efficientnet_b7.ra_in1k.
    timm_name: str | None = None
    # timm: trained weights to start from: hub (those of timm) or the path of a file. A head of another size
    # is initialised.
    weights: str | None = None
    # timm: batch norm uses its running statistics in training too, and does not change them.
    freeze_statistics: bool = False
    # timm: weight of the old running averages of batch norm. The released code has 0.99 for EfficientNet.
    # null means that of timm, which is 0.9 for most networks.
    batch_norm_decay: float | None = setting(None, at_least=0, below=1)
    # timm: images are resized to this number of pixels before the network. null means no resize.
    input_size: int | None = setting(None, at_least=8, at_most=2048)


def model_clashes(model: ModelConfig) -> Iterator[str]:
    """Yield one message for each key of a model that its architecture does not allow or read."""
    if model.architecture not in MODEL_OPTIONS:
        return  # range_fault() reports it
    step, remainder, example = DEPTHS.get(model.architecture, (1, 0, 0))
    if model.depth % step != remainder:
        yield (
            f"model.depth={model.depth}: a {model.architecture} has depth {step}n+{remainder}, "
            f"for example {example}"
        )
    if model.architecture == "shake_shake" and model.width % 2:
        yield f"model.width={model.width}: a shake_shake has an even width, for example 96"
    if model.architecture == "timm" and not model.timm_name:
        yield "model.timm_name=null: name a model of timm, such as model.timm_name=resnet50"
    if model.freeze_statistics and not model.weights:
        yield (
            "model.freeze_statistics=true needs trained weights: fresh batch norm would stay at mean 0 and "
            "variance 1; set model.weights"
        )
    if model.freeze_statistics and model.batch_norm_decay is not None:
        yield (
            f"model.batch_norm_decay={model.batch_norm_decay} has no effect with "
            "model.freeze_statistics=true; leave one of them out"
        )
    for option in sorted({name for names in MODEL_OPTIONS.values() for name in names}):
        read = option in (*MODEL_OPTIONS[model.architecture], *SILENT_MODEL_OPTIONS)
        if not read and getattr(model, option) != getattr(ModelConfig(), option):
            yield f"model.{option} does not apply to {model.architecture}; leave it out"
