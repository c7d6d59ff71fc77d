"""The typed schema of a run: every key with its default, its range, and what it may not be combined with.

Imports no torch, so that help, faults and finished runs cost no start-up time. A field's metadata says
what is allowed; `science=False` marks keys that do not decide the numbers (they are recorded, but are no
part of a run's identity), `sam_only=True` keys that SGD never reads.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

# Depth of each architecture: (a, b, example) for depth a * n + b.
DEPTHS = {
    "cifar_resnet": (6, 2, 20),
    "wide_cifar_resnet": (6, 2, 32),
    "wide_resnet": (6, 4, 28),
    "shake_shake": (6, 2, 26),
    "pyramidnet": (9, 2, 272),
}
# The options of ModelConfig that each architecture reads, besides depth and width.
MODEL_OPTIONS = {
    "cifar_resnet": ("skip",),
    "wide_cifar_resnet": (),
    "wide_resnet": ("shortcut", "batch_norm"),
    "shake_shake": (),
    "pyramidnet": ("alpha", "shakedrop"),
}


class ConfigError(ValueError):
    """A mistake of the user, told in full by its message: exit code 2, no traceback."""


def setting(default: Any, **rules: Any) -> Any:
    """Declare one key: its default and its rules.

    Args:
        default: The value when nothing is said.
        rules: `at_least`, `above`, `at_most`, `below` (numbers), `choices`, `label` (strings), `science`,
            `sam_only`.
    """
    return dataclasses.field(default=default, metadata=rules)


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
            "image_folder",
            "synthetic",
        ),
    )
    # The folder that holds the data; part of the identity for image_folder only.
    root: str = setting("data", science=False)
    # Fetch missing files from the dataset's home, where torchvision knows one.
    download: bool = setting(True, science=False)
    # Use only so many images, classes in equal shares, the same ones in every run; null means all.
    num_train: int | None = setting(None, at_least=1)
    num_test: int | None = setting(None, at_least=1)
    # Share of training labels replaced by another class, drawn with the run's seed.
    label_noise: float = setting(0.0, at_least=0, below=1)
    # Height and width in pixels; for image_folder (resize, centre crop) and synthetic.
    image_size: int | None = setting(None, at_least=8, at_most=1024)
    # For synthetic only; every other dataset knows its own.
    num_classes: int | None = setting(None, at_least=2)


@dataclasses.dataclass
class ModelConfig:
    """Which network."""

    # The name in paths and tables.
    name: str = setting("resnet8", label=True)
    architecture: str = setting("cifar_resnet", choices=tuple(DEPTHS))
    # cifar_resnet, wide_cifar_resnet, shake_shake: 6n+2; wide_resnet: 6n+4; pyramidnet: 9n+2.
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
    # Side in pixels of one square per image set to the mean colour, clipped at the border; 0 means off.
    cutout_size: int = setting(0, at_least=0)


@dataclasses.dataclass
class OptimizerConfig:
    """SGD, alone or as the base optimizer of SAM."""

    name: str = setting("sam", choices=("sgd", "sam"))
    # Learning rate of the first step; it falls to 0 along a cosine, step by step, without warm-up.
    lr: float = setting(0.1, above=0)
    momentum: float = setting(0.9, at_least=0, below=1)
    nesterov: bool = True
    # Added to the gradient of the update by the base optimizer, on every parameter.
    weight_decay: float = setting(5e-4, at_least=0)
    # Largest 2-norm of the final gradient; null means no clipping.
    clip_norm: float | None = setting(5.0, above=0)
    # Radius of the ball in which SAM looks for the highest loss, in weight units.
    rho: float = setting(0.05, at_least=0, sam_only=True)
    # ASAM (Kwon et al. 2021): scale the ball by |w|, weight by weight.
    adaptive: bool = setting(False, sam_only=True)
    # Shake-Shake and ShakeDrop: the first pass uses the true gradient, as in the released code.
    true_gradient: bool = setting(True, sam_only=True)
    # Both passes see the same random draws (gates, dropout), as in the released code.
    replay: bool = setting(True, sam_only=True)


@dataclasses.dataclass
class RuntimeConfig:
    """Where and how it runs; of these keys only `precision` decides the numbers."""

    # auto takes a GPU if there is one; or cpu, cuda, cuda:1.
    device: str = setting("auto", science=False)
    # tf32 needs a GPU; bf16 and fp16 are autocast over fp32 weights.
    precision: str = setting("fp32", choices=("fp32", "tf32", "bf16", "fp16"))
    # CPU threads; null leaves torch's choice.
    threads: int | None = setting(None, at_least=1, at_most=1024, science=False)
    # torch.compile; needs a C++ compiler.
    compile: bool = setting(False, science=False)
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
    epochs: int = setting(20, at_least=1)
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

    # The run directory.
    run: str = ""
    split: str = setting("test", choices=("test", "train"))
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


def range_fault(value: Any, rules: Any) -> str | None:
    """Say what is allowed where a value is not; None where it is."""
    if value is None:
        return None
    if "choices" in rules:
        return None if value in rules["choices"] else "one of " + ", ".join(rules["choices"])
    if rules.get("label") and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", value):
        return "a name of letters, digits, '_', '-' and '.', since it becomes part of a path"
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    bounds: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "at_least": (">=", lambda bound: value >= bound),
        "above": (">", lambda bound: value > bound),
        "at_most": ("<=", lambda bound: value <= bound),
        "below": ("<", lambda bound: value < bound),
    }
    named = [(sign, rules[rule], holds) for rule, (sign, holds) in bounds.items() if rule in rules]
    if all(holds(bound) for _, bound, holds in named):
        return None
    return "a number " + " and ".join(f"{sign} {bound}" for sign, bound, _ in named)


def clashes(config: TrainConfig) -> Iterator[str]:
    """Yield one message for each set of keys that are allowed alone but not together."""
    dataset, model, runtime = config.dataset, config.model, config.runtime
    if config.m and config.batch_size % config.m:
        yield f"m={config.m} does not divide batch_size={config.batch_size}; choose a divisor or m=null"
    yield from model_clashes(model)
    if config.optimizer.nesterov and config.optimizer.momentum == 0:
        yield "optimizer.nesterov=true needs optimizer.momentum > 0; set optimizer.nesterov=false"
    if runtime.precision == "tf32" and not runtime.device.startswith(("cuda", "auto")):
        yield f"runtime.precision=tf32 needs a GPU, but runtime.device={runtime.device}; use fp32"
    if dataset.num_train is not None and dataset.num_train < config.batch_size:
        yield (
            f"dataset.num_train={dataset.num_train} fills no batch of batch_size={config.batch_size}; "
            "lower batch_size"
        )
    if dataset.image_size is not None and dataset.reader not in ("image_folder", "synthetic"):
        yield f"dataset.image_size is fixed for {dataset.reader}; leave it null"
    if dataset.num_classes is not None and dataset.reader != "synthetic":
        yield f"dataset.num_classes is known for {dataset.reader}; leave it null"
    for key, value in (("dataset.root", dataset.root), ("outputs", config.outputs)):
        if not value:
            yield f"{key} is empty; name a folder"
    needed = {
        "synthetic": ("num_train", "num_test", "image_size", "num_classes"),
        "image_folder": ("image_size",),
    }
    for key in needed.get(dataset.reader, ()):
        if getattr(dataset, key) is None:
            yield f"dataset.{key}=null: {dataset.reader} needs a number here"


def model_clashes(model: ModelConfig) -> Iterator[str]:
    """Yield one message for each key of a model that its architecture does not allow or read."""
    if model.architecture not in DEPTHS:
        return  # a fault of its own
    step, remainder, example = DEPTHS[model.architecture]
    if model.depth % step != remainder:
        yield (
            f"model.depth={model.depth}: a {model.architecture} has depth {step}n+{remainder}, "
            f"for example {example}"
        )
    if model.architecture == "shake_shake" and model.width % 2:
        yield f"model.width={model.width}: a shake_shake has an even width, for example 96"
    for option in sorted({name for names in MODEL_OPTIONS.values() for name in names}):
        read = option in MODEL_OPTIONS[model.architecture]
        if not read and getattr(model, option) != getattr(ModelConfig(), option):
            yield f"model.{option} is nothing that a {model.architecture} reads; leave it out"


def check(config: Any) -> None:
    """Check every range and every clash of one config.

    Raises:
        ConfigError: If anything is not allowed; the message lists all faults of the config, a line each.
    """
    faults = [
        f"{key}={value}: allowed is {allowed}"
        for key, value, field in leaves(config)
        if (allowed := range_fault(value, field.metadata))
    ]
    if isinstance(config, TrainConfig):
        faults += clashes(config)
    if faults:
        raise ConfigError("\n".join(faults))
