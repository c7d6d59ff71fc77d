"""Whether a config is allowed: the range of every key, and what may not be combined. Imports no torch."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from sam.analysis_config import AnalysisConfig, analysis_clashes
from sam.config import (
    DEPTHS,
    FILE_READERS,
    MODEL_OPTIONS,
    SILENT_MODEL_OPTIONS,
    AugmentationConfig,
    ConfigError,
    DatasetConfig,
    EvaluateConfig,
    ModelConfig,
    OptimizerConfig,
    RuntimeConfig,
    TrainConfig,
    leaves,
)


def range_fault(value: Any, rules: Any) -> str | None:
    """Say what is allowed where a value is not; None where it is."""
    if value is None:
        return None
    if isinstance(value, list):
        faults = filter(None, (range_fault(item, rules) for item in value))
        return next(faults, None) if value else "a list of at least one value, such as [1,4]"
    if "choices" in rules:
        return None if value in rules["choices"] else "one of " + ", ".join(rules["choices"])
    if rules.get("label") and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", value):
        return "a name of letters, digits, '_', '-' and '.', since it becomes part of a path"
    if isinstance(value, float) and not (
        math.isfinite(value) or (value == math.inf and rules.get("infinite"))
    ):
        return "a number > 1, or inf" if rules.get("infinite") else "a finite number"
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
    runtime = config.runtime
    if config.m and config.batch_size % config.m:
        yield f"m={config.m} does not divide batch_size={config.batch_size}; choose a divisor or m=null"
    images = config.m or config.batch_size
    if config.optimizer.name == "sam" and config.optimizer.ascent_fraction * images < 1:
        yield (
            f"optimizer.ascent_fraction={config.optimizer.ascent_fraction} of {images} images (m) is not one "
            "image; make one of them larger"
        )
    if not config.outputs:
        yield "outputs is empty; name a folder"
    yield from dataset_clashes(config.dataset, config.batch_size)
    yield from model_clashes(config.model)
    yield from augmentation_clashes(config.augmentation, config.dataset)
    yield from optimizer_clashes(config.optimizer, runtime)
    yield from parallel_clashes(config.optimizer, runtime)
    yield from schedule_clashes(config.analysis, runtime)
    if runtime.precision == "tf32" and not runtime.device.startswith(("cuda", "auto")):
        yield f"runtime.precision=tf32 needs a GPU, but runtime.device={runtime.device}; use fp32"
    if runtime.grad_checkpointing and config.model.architecture != "timm":
        yield (
            f"runtime.grad_checkpointing=true: only timm models have it, not {config.model.architecture}; "
            "lower m or batch_size to save memory"
        )


def dataset_clashes(dataset: DatasetConfig, batch_size: int) -> Iterator[str]:
    """Yield one message for each key of a dataset that its reader needs, or does not allow."""
    if not dataset.root:
        yield "dataset.root is empty; name a folder"
    if dataset.num_train is not None and dataset.num_train * dataset.repeats < batch_size:
        yield (
            f"dataset.num_train={dataset.num_train} fills no batch of batch_size={batch_size}; "
            "lower batch_size"
        )
    for key in ("resize_size", "interpolation", "in_memory"):
        if dataset.reader not in FILE_READERS and getattr(dataset, key) != getattr(DatasetConfig(), key):
            yield f"dataset.{key} is nothing that {dataset.reader} reads; leave it out"
    if not dataset.extra and dataset.reader != "svhn":
        yield f"dataset.extra is nothing that {dataset.reader} reads; leave it out"
    if dataset.num_classes is not None and dataset.reader != "synthetic":
        yield f"dataset.num_classes is known for {dataset.reader}; leave it null"
    needed: dict[str, tuple[str, ...]] = {"synthetic": ("num_train", "num_test", "image_size", "num_classes")}
    needed |= dict.fromkeys(FILE_READERS, ("image_size",))
    for key in needed.get(dataset.reader, ()):
        if getattr(dataset, key) is None:
            yield f"dataset.{key}=null: {dataset.reader} needs a number here"
    if dataset.validation == "last" and dataset.reader in FILE_READERS:
        yield (
            f"dataset.validation=last: the last images of {dataset.reader} are those of the last classes; "
            "use dataset.validation=random"
        )
    if dataset.resize_size is not None and dataset.resize_size < (dataset.image_size or 0):
        yield f"dataset.resize_size={dataset.resize_size} is below dataset.image_size={dataset.image_size}"
    yield from label_clashes(dataset)


def label_clashes(dataset: DatasetConfig) -> Iterator[str]:
    """Yield one message for each set of keys that want labels in two ways, or in none."""
    if dataset.label_noise_over != DatasetConfig().label_noise_over and not dataset.label_noise:
        yield f"dataset.label_noise_over={dataset.label_noise_over} needs dataset.label_noise > 0"
    sources = {
        "dataset.label_noise": dataset.label_noise,
        "dataset.label_file": dataset.label_file,
        "dataset.relabel_from": dataset.relabel_from,
    }
    if sum(map(bool, sources.values())) > 1:
        told = " and ".join(f"{key}={value}" for key, value in sources.items() if value)
        yield f"{told}: labels come from one of these; leave the others out"
    if dataset.label_name and not dataset.label_file:
        yield f"dataset.label_name={dataset.label_name} needs dataset.label_file=PATH"


def model_clashes(model: ModelConfig) -> Iterator[str]:
    """Yield one message for each key of a model that its architecture does not allow or read."""
    if model.architecture not in MODEL_OPTIONS:
        return  # a fault of its own
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
    for option in sorted({name for names in MODEL_OPTIONS.values() for name in names}):
        read = option in (*MODEL_OPTIONS[model.architecture], *SILENT_MODEL_OPTIONS)
        if not read and getattr(model, option) != getattr(ModelConfig(), option):
            yield f"model.{option} is nothing that a {model.architecture} reads; leave it out"


def augmentation_clashes(augmentation: AugmentationConfig, dataset: DatasetConfig) -> Iterator[str]:
    """Yield one message for each augmentation that the dataset does not allow."""
    if augmentation.inception_crop and (dataset.reader not in FILE_READERS or dataset.in_memory):
        yield (
            "augmentation.inception_crop=true needs images of full size: a dataset of files, with "
            "dataset.in_memory=false"
        )


def optimizer_clashes(optimizer: OptimizerConfig, runtime: RuntimeConfig) -> Iterator[str]:
    """Yield one message for each set of optimizer keys that do not go together."""
    if optimizer.nesterov and optimizer.momentum == 0:
        yield "optimizer.nesterov=true needs optimizer.momentum > 0; set optimizer.nesterov=false"
    if optimizer.name != "sam":
        return
    variants = {
        "adaptive=true": optimizer.adaptive,
        f"p={optimizer.p:g}": optimizer.p != 2,
        f"direction={optimizer.direction}": optimizer.direction != "gradient",
        f"ascent_steps={optimizer.ascent_steps}": optimizer.ascent_steps > 1,
        "second_order=true": optimizer.second_order,
    }
    if optimizer.ascent_steps == 1 and optimizer.ascent_step_size != 1:
        yield (
            f"optimizer.ascent_step_size={optimizer.ascent_step_size} is that of steps after the first; ask "
            "for them with optimizer.ascent_steps"
        )
    chosen = [f"optimizer.{variant}" for variant, is_on in variants.items() if is_on]
    if len(chosen) > 1:
        yield f"{' and '.join(chosen)} do not go together; choose one"
    yield from cheaper_rule_clashes(optimizer, runtime)
    if optimizer.second_order:
        yield from second_order_clashes(optimizer, runtime)


def cheaper_rule_clashes(optimizer: OptimizerConfig, runtime: RuntimeConfig) -> Iterator[str]:
    """Yield one message for each set of keys that leaves a cheaper rule without sense."""
    if optimizer.start >= optimizer.stop:
        yield (
            f"optimizer.start={optimizer.start} is not before optimizer.stop={optimizer.stop}: SAM would "
            "never perturb; move them apart, or use optimizer=sgd"
        )
    if optimizer.sync_ascent and optimizer.direction == "random":
        yield (
            "optimizer.sync_ascent=true needs optimizer.direction=gradient: each process would draw a "
            "direction of its own"
        )
    if not optimizer.reuse:
        return
    if optimizer.interval == 1:
        yield (
            f"optimizer.reuse={optimizer.reuse} is for the updates that do not perturb; set "
            "optimizer.interval=5, or optimizer.reuse=0"
        )
    if optimizer.ascent_fraction < 1:
        yield (
            "optimizer.reuse compares gradients of the same images: it needs optimizer.ascent_fraction=1, "
            f"not {optimizer.ascent_fraction}"
        )
    if optimizer.direction == "random":
        yield "optimizer.reuse needs optimizer.direction=gradient"
    if runtime.precision == "fp16":
        yield (
            "optimizer.reuse needs runtime.precision=fp32, tf32 or bf16, not fp16, whose gradients may "
            "overflow: that would be reused"
        )


def second_order_clashes(optimizer: OptimizerConfig, runtime: RuntimeConfig) -> Iterator[str]:
    """Yield one message for each key that the second-order rule cannot have."""
    if runtime.precision not in ("fp32", "tf32"):
        yield (
            f"optimizer.second_order=true needs runtime.precision=fp32 or tf32, not {runtime.precision}: "
            "half precision rounds second derivatives away"
        )
    if runtime.compile:
        yield "optimizer.second_order=true needs runtime.compile=false: torch compiles no double backward"
    if runtime.grad_checkpointing:
        yield "optimizer.second_order=true needs runtime.grad_checkpointing=false"
    if (runtime.processes or 1) > 1:
        yield f"optimizer.second_order=true runs in one process, not runtime.processes={runtime.processes}"
    for key in ("sync_ascent", "perturb", "ascent_fraction", "interval", "start", "stop"):
        value, default = getattr(optimizer, key), getattr(OptimizerConfig(), key)
        if value != default:
            yield f"optimizer.second_order=true does not go with optimizer.{key}={value}; leave it out"


def parallel_clashes(optimizer: OptimizerConfig, runtime: RuntimeConfig) -> Iterator[str]:
    """Yield one message for each key that does not go with sharded weights."""
    if runtime.parallel != "fsdp":
        return
    if runtime.precision == "fp16":
        yield (
            "runtime.parallel=fsdp needs runtime.precision=fp32, tf32 or bf16: of fp16, each process sees "
            "the overflows of its shard alone"
        )
    for key in ("compile", "grad_checkpointing"):
        if getattr(runtime, key):
            yield f"runtime.parallel=fsdp does not go with runtime.{key}=true; use runtime.parallel=ddp"
    if optimizer.name != "sam":
        return
    if not optimizer.sync_ascent:
        yield (
            "runtime.parallel=fsdp needs optimizer.sync_ascent=true: a perturbation of each process's own "
            "cannot live on weights of which it holds a shard"
        )
    if optimizer.p != 2 or optimizer.reuse:
        yield ("runtime.parallel=fsdp needs optimizer.p=2 and optimizer.reuse=0; use runtime.parallel=ddp")


def schedule_clashes(analysis: AnalysisConfig, runtime: RuntimeConfig) -> Iterator[str]:
    """Yield one message for each key that does not go with an analysis during training."""
    if analysis.name != "none" and runtime.parallel == "fsdp":
        yield (
            f"analysis={analysis.name} needs whole weights during training, but runtime.parallel=fsdp shards "
            "them; analyse the run afterwards: python evaluate.py run=... analysis=..."
        )
    if analysis.name == "landscape" and analysis.directions == "eigenvectors":
        yield (
            "analysis.directions=eigenvectors needs those of an earlier hessian analysis; use evaluate.py "
            "once the run has ended"
        )


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
    faults += analysis_clashes(config.analysis)
    if isinstance(config, TrainConfig):
        faults += clashes(config)
    elif config.analysis.name != "none" and config.split != EvaluateConfig().split:
        faults.append(
            f"split={config.split} is that of an evaluation; for analysis={config.analysis.name} say "
            "analysis.split=train or test"
        )
    if faults:
        raise ConfigError("\n".join(faults))
