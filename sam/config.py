"""The typed schema of a run: every key with its default and its range; sam/check.py holds configs against it.

Imports no torch, so that help, faults and finished runs cost no start-up time. A field's metadata says
what is allowed; `science=False` marks keys that do not decide the numbers (they are recorded, but are no
part of a run's identity), `sam_only=True` keys that SGD never reads.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sam.analysis_config import AnalysisConfig
from sam.setting import setting

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
    "wide_resnet": ("depth", "width", "init", "shortcut", "batch_norm"),
    "shake_shake": ("depth", "width", "init"),
    "pyramidnet": ("depth", "width", "init", "alpha", "shakedrop"),
    "timm": ("timm_name", "weights", "freeze_statistics", "input_size"),
}
# A recipe or every config sets these: nobody means anything by them where they are not read.
SILENT_MODEL_OPTIONS = ("depth", "width", "shortcut")
# Readers that find files on disk and decode them, as the run goes on or at its start.
FILE_READERS = (
    "image_folder",
    "fgvc_aircraft",
    "flowers102",
    "oxford_iiit_pet",
    "stanford_cars",
    "food101",
)


class ConfigError(ValueError):
    """A mistake of the user, told in full by its message: exit code 2, no traceback."""


@contextmanager
def user_errors(key: str) -> Iterator[None]:
    """Turn what readers and constructors say about files and values into a ConfigError that names a key."""
    try:
        yield
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from error


@dataclasses.dataclass
class DatasetConfig:
    """Which images, which part of them, and what is done to their labels."""

    # The name in paths and tables; free to choose for image_folder.
    name: str = setting("fashion_mnist_mini", label=True)
    # The code that reads it.
    reader: str = setting(
        "fashion_mnist_mini",
        choices=(
            "fashion_mnist_mini",
            "fashion_mnist",
            "cifar10",
            "cifar100",
            "svhn",
            "synthetic",
            *FILE_READERS,
        ),
    )
    # The folder that holds the data; part of the identity for image_folder only.
    root: str = setting("data", science=False)
    # Fetch missing files from the dataset's home, where torchvision knows one.
    download: bool = setting(True, science=False)
    # Use only so many images, classes in equal shares, the same ones in every run; null means all.
    num_train: int | None = setting(None, at_least=1)
    num_test: int | None = setting(None, at_least=1)
    # Train on nine tenths of the training images and put the rest in the place of the test images: the last
    # ones, as in the released code, or a fixed random tenth. For choosing rho.
    validation: str = setting("none", choices=("none", "last", "random"))
    # An epoch walks the training images so many times; for training sets of a few batches.
    repeats: int = setting(1, at_least=1)
    # Share of training labels drawn anew, with the run's seed.
    label_noise: float = setting(0.0, at_least=0, below=1)
    # What they are drawn from: the other classes, so that all of them are wrong, or all classes.
    label_noise_over: str = setting("other_classes", choices=("other_classes", "all_classes"))
    # Training labels from a file (.npz, .npy, .pt), such as CIFAR-10N's human ones, and which of its arrays.
    label_file: str | None = None
    label_name: str | None = None
    # Training labels predicted by an ended run (bootstrapping): its run directory.
    relabel_from: str | None = None
    # Height and width in pixels: of files and of synthetic; others are shrunk to it, to save time.
    image_size: int | None = setting(None, at_least=8, at_most=1024)
    # Files: the shorter side is resized to so many pixels before the centre crop; null means image_size.
    resize_size: int | None = setting(None, at_least=8, at_most=2048)
    interpolation: str = setting("bilinear", choices=("bilinear", "bicubic"))
    # Files: decode all at the start and keep them as bytes; else worker processes decode them as they come.
    in_memory: bool = True
    # svhn: train on its 531,131 extra images too.
    extra: bool = True
    # For synthetic only; every other dataset knows its own.
    num_classes: int | None = setting(None, at_least=2)


@dataclasses.dataclass
class ModelConfig:
    """Which network."""

    # The name in paths and tables.
    name: str = setting("resnet8", label=True)
    architecture: str = setting("cifar_resnet", choices=tuple(MODEL_OPTIONS))
    # cifar_resnet, wide_cifar_resnet, shake_shake: 6n+2; wide_resnet: 6n+4; pyramidnet: 9n+2; not for timm.
    depth: int = setting(8, at_least=8, at_most=2000)
    # Channels of the first stage (pyramidnet: of the stem); wide_resnet: the widening factor k.
    width: int = setting(16, at_least=1)
    # wide_resnet: pool (pooling and zeros, as in the released code) or conv (1 x 1 convolutions).
    shortcut: str = setting("pool", choices=("pool", "conv"))
    # wide_resnet: false for the network of the paper's Figure 3.
    batch_norm: bool = True
    # cifar_resnet: false for the network without shortcuts of the paper's Figure 1.
    skip: bool = True
    # pyramidnet: channels added from the first block to the last.
    alpha: int = setting(200, at_least=1)
    # pyramidnet: ShakeDrop in every block.
    shakedrop: bool = False
    # How the weights are drawn: released_code (He, a uniform classifier), or torch (its own defaults).
    init: str = setting("released_code", choices=("released_code", "torch"))
    # Seed of that draw; null means the run's. The released code draws the same weights in every run.
    init_seed: int | None = setting(None, at_least=0, at_most=2**31 - 1)
    # timm: any name that timm knows, with a tag or without, such as tf_efficientnet_b7.ra_in1k.
    timm_name: str | None = None
    # timm: start from trained weights: hub (timm's), or a file. The head is new unless it has the right size.
    weights: str | None = None
    # timm: batch norm uses its running statistics in training too, and leaves them alone.
    freeze_statistics: bool = False
    # timm: resize images to so many pixels before the network; null leaves them as they come.
    input_size: int | None = setting(None, at_least=8, at_most=2048)


@dataclasses.dataclass
class AugmentationConfig:
    """What is drawn anew for every training image."""

    # The name in paths and tables.
    name: str = setting("none", label=True)
    # Mirror left to right with probability 1/2.
    flip: bool = False
    # Pad by so many pixels on each side, then crop at a random place; 0 means off.
    crop_padding: int = setting(0, at_least=0)
    # What fills the border: reflect as in the released code, or zero (the mean colour).
    padding: str = setting("reflect", choices=("reflect", "zero"))
    # Side in pixels of a square set to the mean colour, clipped at the border; 0 means off.
    cutout_size: int = setting(0, at_least=0)
    # One square per image, or one per batch, in the same place for all, as in the released code.
    cutout_scope: str = setting("image", choices=("image", "batch"))
    # AutoAugment (Cubuk et al. 2019): the policy found on that dataset, before flip and crop.
    auto_augment: str = setting("none", choices=("none", "cifar10", "svhn", "imagenet"))
    # Files: crop 8 to 100 % of the area at a ratio of 3/4 to 4/3 instead of the centre.
    inception_crop: bool = False
    # Mixup (Zhang et al. 2018) with lambda ~ Beta(alpha, alpha), one a batch; 0 means off.
    mixup_alpha: float = setting(0.0, at_least=0)


@dataclasses.dataclass
class OptimizerConfig:
    """SGD, alone or as the base optimizer of SAM."""

    name: str = setting("sam", choices=("sgd", "sam"))
    # Learning rate of the first step; it falls to 0 along a cosine, step by step, without warm-up.
    lr: float = setting(0.1, above=0)
    momentum: float = setting(0.9, at_least=0, below=1)
    nesterov: bool = True
    # L2, on every parameter.
    weight_decay: float = setting(5e-4, at_least=0)
    # optimizer: added to the gradient of the update, at w. loss: 1/2 weight_decay ||w||^2 is part of the loss
    # of both passes, so of the direction of eps and of clipping too, as in the released code.
    weight_decay_in: str = setting("optimizer", choices=("optimizer", "loss"))
    # Largest 2-norm of the final gradient; null means no clipping.
    clip_norm: float | None = setting(5.0, above=0)
    # Radius of the ball in which SAM looks for the highest loss, in weight units.
    rho: float = setting(0.05, at_least=0, sam_only=True)
    # ASAM (Kwon et al. 2021): scale the ball by |w|, weight by weight.
    adaptive: bool = setting(False, sam_only=True)
    # The norm of the ball, 1 < p <= inf (Eq. 2); the paper found 2 the best.
    p: float = setting(2.0, above=1, infinite=True, sam_only=True)
    # Where eps points: along the gradient, or along Gaussian noise.
    direction: str = setting("gradient", choices=("gradient", "random"), sam_only=True)
    # Ascent steps (appendix C.5). The first has length rho; that of the others, which are projected onto the
    # ball, is in units of rho.
    ascent_steps: int = setting(1, at_least=1, sam_only=True)
    ascent_step_size: float = setting(1.0, above=0, sam_only=True)
    # Keep the term of the gradient that SAM drops (appendix C.4), by double backward.
    second_order: bool = setting(False, sam_only=True)
    # Shake-Shake and ShakeDrop: the first pass uses the true gradient, as in the released code.
    true_gradient: bool = setting(True, sam_only=True)
    # Both passes see the same random draws (gates, dropout), as in the released code.
    replay: bool = setting(True, sam_only=True)
    # Several processes: take eps from the gradient of m images over all of them, at one more exchange of
    # gradients per micro-batch, instead of from m images of each. Batch statistics stay those of the part of
    # a process, so with batch norm the numbers depend on how many processes there are.
    sync_ascent: bool = setting(False, sam_only=True)
    # What eps moves: all weights, or those of normalisation layers alone (SAM-ON, Mueller et al. 2023).
    perturb: str = setting("all", choices=("all", "norm"), sam_only=True)
    # Share of the images of a micro-batch that the ascent passes see, rounded; the last pass sees all.
    ascent_fraction: float = setting(1.0, above=0, at_most=1, sam_only=True)
    # Perturb in every so many-th update only; the others take the plain gradient, plus, if reuse > 0, that
    # many times the part of SAM's last gradient at right angles to it (alpha of LookSAM, Liu et al. 2022).
    interval: int = setting(1, at_least=1, sam_only=True)
    reuse: float = setting(0.0, at_least=0, sam_only=True)
    # Perturb only between these two shares of all updates; plain SGD before and after (Zhou et al. 2025).
    start: float = setting(0.0, at_least=0, below=1, sam_only=True)
    stop: float = setting(1.0, above=0, at_most=1, sam_only=True)


@dataclasses.dataclass
class RuntimeConfig:
    """Where and how it runs; of these keys only `precision` decides the numbers (but see sync_ascent)."""

    # auto takes a GPU if there is one; or cpu, cuda, cuda:1.
    device: str = setting("auto", science=False)
    # tf32 needs a GPU; bf16 and fp16 are autocast over fp32 weights.
    precision: str = setting("fp32", choices=("fp32", "tf32", "bf16", "fp16"))
    # Processes that share every batch, one device each; null means one, or those that torchrun started.
    processes: int | None = setting(None, at_least=1, at_most=1024, science=False)
    # ddp: every process holds all weights. fsdp: each holds a shard (torch's fully_shard).
    parallel: str = setting("ddp", choices=("ddp", "fsdp"), science=False)
    # CPU threads of each process; null leaves torch's choice, divided by the processes of this machine.
    threads: int | None = setting(None, at_least=1, at_most=1024, science=False)
    # torch.compile; needs a C++ compiler.
    compile: bool = setting(False, science=False)
    # Processes that decode and AutoAugment images; null means one per CPU core, 0 none.
    workers: int | None = setting(None, at_least=0, at_most=1024, science=False)
    # timm: keep few activations and compute the others anew going backward: less memory, more time.
    grad_checkpointing: bool = setting(False, science=False)
    # Several processes: how long one waits for another before the run ends, which then can be gone on with.
    timeout_minutes: float = setting(10.0, above=0, at_most=10080, science=False)
    # Save at least this often inside an epoch; every epoch ends with a save anyway.
    checkpoint_minutes: float = setting(5.0, above=0, science=False)


@dataclasses.dataclass
class TrainConfig:
    """One run."""

    dataset: DatasetConfig = dataclasses.field(default_factory=DatasetConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    augmentation: AugmentationConfig = dataclasses.field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)
    analysis: AnalysisConfig = dataclasses.field(default_factory=AnalysisConfig)
    # 0 trains nothing: the network is evaluated as it starts, with model.weights as they are in the file.
    epochs: int = setting(20, at_least=0)
    # Images per update, over all processes; the rest of an epoch that fills no batch is dropped.
    batch_size: int = setting(128, at_least=1)
    # Images per micro-batch: one perturbation, one set of batch statistics; null means all of a device.
    m: int | None = setting(None, at_least=1)
    label_smoothing: float = setting(0.0, at_least=0, below=1)
    seed: int = setting(0, at_least=0, at_most=2**31 - 1)
    # The folder that holds the run directories.
    outputs: str = setting("outputs", science=False)
    # Throw away what an earlier run of the same identity left, and start anew.
    force: bool = setting(False, science=False)


@dataclasses.dataclass
class EvaluateConfig:
    """One evaluation of a run."""

    # The run directory, or a folder with several below it.
    run: str = ""
    # Errors on the split, or, where an analysis is chosen, that instead.
    analysis: AnalysisConfig = dataclasses.field(default_factory=AnalysisConfig)
    split: str = setting("test", choices=("test", "train", "train_clean"))
    device: str = "auto"
    # Where the dataset lies now; null means where the run found it.
    root: str | None = None


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Yield (dotted key, value, field) of every key below a config dataclass."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value, field
