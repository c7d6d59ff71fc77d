"""The keys of an optimizer, and which of them cannot be combined."""

import dataclasses
from collections.abc import Iterator

from sam.config.runtime import RuntimeConfig
from sam.config.sam_rules import KEYS_OF_ALL_RULES, RULES_WITHOUT_LOSS_SCALE, SAM_RULES
from sam.config.setting import setting


@dataclasses.dataclass
class OptimizerConfig:
    """The base optimizer, alone or inside SAM."""

    # sgd: the base optimizer alone. sam: SAM around the base optimizer.
    name: str = setting("sam", choices=("sgd", "sam"))
    # Base optimizer: SGD, AdamW, or the RMSProp of the released code (for EfficientNet). AdamW and RMSProp
    # need another lr and weight_decay than SGD, for example 0.001 and 0.05 for AdamW.
    base: str = setting("sgd", choices=("sgd", "adamw", "rmsprop"))
    # Learning rate of the first step after the warm-up. It falls to 0 along a cosine, step by step.
    lr: float = setting(0.1, above=0)
    # Number of epochs, for example 5 or 0.5, in which the learning rate rises to lr, step by step along a
    # line. The cosine covers the other epochs.
    warmup_epochs: float = setting(0.0, at_least=0)
    # Momentum of SGD and RMSProp; beta_1 of AdamW, whose beta_2 is 0.999.
    momentum: float = setting(0.9, at_least=0, below=1)
    # Nesterov momentum; only SGD reads it.
    nesterov: bool = True
    # L2, on every parameter.
    weight_decay: float = setting(5e-4, at_least=0)
    # optimizer: weight_decay * w is added to the gradient of the update, after clipping. AdamW subtracts
    # lr * weight_decay * w from the weights instead. loss: 1/2 weight_decay ||w||^2 is part of the loss of
    # both passes, as in the released code. Then it also changes the direction of eps, and clipping
    # includes it.
    weight_decay_in: str = setting("optimizer", choices=("optimizer", "loss"))
    # Largest 2-norm of the final gradient. null means no clipping.
    clip_norm: float | None = setting(5.0, above=0)
    # SAM, or another rule of its family (docs/variants.md). A rule refuses the keys that it does not read.
    rule: str = setting("sam", choices=tuple(SAM_RULES), sam_only=True)
    # Radius of the ball in which SAM looks for the highest loss, in weight units. For le_sam, it is rho_max.
    rho: float = setting(0.05, at_least=0, sam_only=True)
    # ASAM (Kwon et al. 2021): scale the ball by |w|, weight by weight.
    adaptive: bool = setting(False, sam_only=True)
    # Weights for which adaptive=true scales the ball. all: every weight. not_biases, as in the code of ASAM:
    # weights of convolutions, linear and normalisation layers. kernels: of convolutions and linear layers.
    adaptive_for: str = setting("all", choices=("all", "not_biases", "kernels"), sam_only=True)
    # Norm of the ball, 1 < p <= inf (Eq. 2). In the paper, 2 was the best.
    p: float = setting(2.0, above=1, infinite=True, sam_only=True)
    # Direction of eps: along the gradient, or along Gaussian noise.
    direction: str = setting("gradient", choices=("gradient", "random"), sam_only=True)
    # Number of ascent steps (appendix C.5). The first one has length rho; the others are projected onto the
    # ball.
    ascent_steps: int = setting(1, at_least=1, sam_only=True)
    # Length of the ascent steps after the first, in units of rho.
    ascent_step_size: float = setting(1.0, above=0, sam_only=True)
    # Keep the second-order term of the gradient, which SAM drops (appendix C.4). It needs double backward.
    second_order: bool = setting(False, sam_only=True)
    # Shake-Shake and ShakeDrop: use the true gradient in the first pass, as in the released code.
    true_gradient: bool = setting(True, sam_only=True)
    # Use the same random numbers in both passes (gates, dropout), as in the released code.
    replay: bool = setting(True, sam_only=True)
    # Several processes: compute one eps for all processes from m images in total, instead of one eps in each
    # process from its own m images. It costs one more exchange of gradients per micro-batch. Each process
    # still has its own batch statistics, so with batch norm the numbers depend on the number of processes.
    sync_ascent: bool = setting(False, sam_only=True)
    # Weights that are perturbed: all, or only those of normalisation layers (SAM-ON, Mueller et al. 2023).
    perturb: str = setting("all", choices=("all", "norm"), sam_only=True)
    # Share of a micro-batch that the ascent passes use, rounded to whole images. The last pass uses all.
    ascent_fraction: float = setting(1.0, above=0, at_most=1, sam_only=True)
    # Perturb only in every interval-th update. The others use the plain gradient.
    interval: int = setting(1, at_least=1, sam_only=True)
    # alpha of LookSAM (Liu et al. 2022). Updates that do not perturb add a vector to the plain gradient: the
    # part of SAM's last gradient that was orthogonal to the plain gradient then. Its length is reuse times
    # that of the plain gradient. 0 means off. It needs base=sgd.
    reuse: float = setting(0.0, at_least=0, sam_only=True)
    # Perturb only after this share of all updates; plain SGD before (Zhou et al. 2025).
    start: float = setting(0.0, at_least=0, below=1, sam_only=True)
    # Perturb only before this share of all updates; plain SGD after.
    stop: float = setting(1.0, above=0, at_most=1, sam_only=True)
    # F-SAM: sigma, the share of the average gradient that is subtracted from the gradient.
    f_sam_sigma: float = setting(1.0, at_least=0, sam_only=True)
    # F-SAM: lambda, the weight of the old average in the new one.
    f_sam_decay: float = setting(0.9, at_least=0, below=1, sam_only=True)
    # VaSSO: theta, the weight of the newest gradient in the direction of eps. 1 is SAM.
    vasso_theta: float = setting(0.4, above=0, at_most=1, sam_only=True)
    # LE-SAM: sigma, the rise of the linearised loss from w to w + eps, in units of the loss.
    le_sam_sigma: float = setting(0.35, at_least=0, sam_only=True)
    # LE-SAM: share of all updates in which sigma rises from 0, along a line.
    le_sam_warm_up: float = setting(0.05, at_least=0, at_most=1, sam_only=True)
    # LE-SAM: share of all updates before sigma falls to 0, along a cosine. With 1, it does not fall.
    le_sam_fall: float = setting(0.8, at_least=0, at_most=1, sam_only=True)


def optimizer_clashes(optimizer: OptimizerConfig, runtime: RuntimeConfig, micro_batch: int) -> Iterator[str]:
    """Yield one message for each set of optimizer keys that cannot be combined.

    Args:
        optimizer: The keys of the optimizer.
        runtime: The keys of the runtime.
        micro_batch: Number of images that share one perturbation.
    """
    if optimizer.base == "sgd" and optimizer.nesterov and optimizer.momentum == 0:
        yield "optimizer.nesterov=true needs optimizer.momentum > 0; set optimizer.nesterov=false"
    if optimizer.name != "sam" or optimizer.rule not in SAM_RULES:
        return  # range_fault() reports an unknown rule
    yield from rule_clashes(optimizer, runtime)
    if optimizer.ascent_fraction * micro_batch < 1:
        yield (
            f"optimizer.ascent_fraction={optimizer.ascent_fraction} of {micro_batch} images (m) is less than "
            "one image; make one of them larger"
        )
    yield from perturbation_clashes(optimizer)
    yield from cheaper_rule_clashes(optimizer, runtime)
    if optimizer.second_order:
        yield from second_order_clashes(optimizer, runtime)
    if runtime.parallel == "fsdp":
        yield from sharding_clashes(optimizer)


def rule_clashes(optimizer: OptimizerConfig, runtime: RuntimeConfig) -> Iterator[str]:
    """Yield one message for each key that the chosen rule does not read, or that it needs."""
    read = (*KEYS_OF_ALL_RULES, *SAM_RULES[optimizer.rule].keys)
    for field in dataclasses.fields(optimizer):
        if not field.metadata.get("sam_only") or field.name in read:
            continue
        value = getattr(optimizer, field.name)
        if value != field.default:
            readers = " or ".join(rule for rule, one in SAM_RULES.items() if field.name in one.keys)
            yield (
                f"optimizer.{field.name}={_text(value)} does not apply to optimizer.rule={optimizer.rule}; "
                f"leave it out, or set optimizer.rule={readers}"
            )
    if optimizer.rule == "functional_sam" and not optimizer.replay:
        yield (
            "optimizer.replay=false: optimizer.rule=functional_sam uses the error signal of the first pass, "
            "which belongs to its random masks; set optimizer.replay=true"
        )
    if optimizer.rule == "stable_sam" and (runtime.processes or 1) > 1:
        yield (
            f"optimizer.rule=stable_sam runs in one process, not runtime.processes={runtime.processes}; set "
            "runtime.processes=1"
        )
    if optimizer.rule == "msam" and optimizer.momentum == 0:
        yield (
            "optimizer.momentum=0: optimizer.rule=msam perturbs along the momentum, so it needs "
            "optimizer.momentum > 0; set optimizer.momentum=0.9"
        )
    if optimizer.rule in RULES_WITHOUT_LOSS_SCALE and runtime.precision == "fp16":
        yield (
            f"optimizer.rule={optimizer.rule} needs runtime.precision=fp32, tf32 or bf16: in fp16, gradients "
            "have a loss scale, and eps would depend on it"
        )
    if optimizer.le_sam_warm_up > optimizer.le_sam_fall:
        yield (
            f"optimizer.le_sam_warm_up={optimizer.le_sam_warm_up} is larger than "
            f"optimizer.le_sam_fall={optimizer.le_sam_fall}: sigma would fall before it has risen; lower the "
            "first or raise the second"
        )


def perturbation_clashes(optimizer: OptimizerConfig) -> Iterator[str]:
    """Yield one message for each set of keys that define two perturbations, or none."""
    variants = {
        "adaptive=true": optimizer.adaptive,
        f"p={optimizer.p:g}": optimizer.p != 2,
        f"direction={optimizer.direction}": optimizer.direction != "gradient",
        f"ascent_steps={optimizer.ascent_steps}": optimizer.ascent_steps > 1,
        "second_order=true": optimizer.second_order,
    }
    if optimizer.adaptive_for != "all" and not optimizer.adaptive:
        yield (
            f"optimizer.adaptive_for={optimizer.adaptive_for} needs optimizer.adaptive=true; set it, or "
            "leave optimizer.adaptive_for out"
        )
    if optimizer.adaptive_for == "kernels" and optimizer.perturb == "norm":
        yield (
            "optimizer.adaptive_for=kernels and optimizer.perturb=norm leave no weight to scale; use "
            "optimizer.adaptive_for=not_biases"
        )
    if optimizer.ascent_steps == 1 and optimizer.ascent_step_size != 1:
        yield (
            f"optimizer.ascent_step_size={optimizer.ascent_step_size} applies only to ascent steps after the "
            "first; set optimizer.ascent_steps=2 or more"
        )
    chosen = [f"optimizer.{variant}" for variant, is_on in variants.items() if is_on]
    if len(chosen) > 1:
        yield f"{' and '.join(chosen)} do not go together; choose one"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def cheaper_rule_clashes(optimizer: OptimizerConfig, runtime: RuntimeConfig) -> Iterator[str]:
    """Yield one message for each set of keys with which a cheaper rule has no effect or is not defined."""
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
    if optimizer.base != "sgd":
        yield f"optimizer.reuse needs optimizer.base=sgd, not {optimizer.base}; use sgd, or optimizer.reuse=0"
    if runtime.precision == "fp16":
        yield (
            "optimizer.reuse needs runtime.precision=fp32, tf32 or bf16: in fp16, a gradient may overflow, "
            "and would be reused"
        )


def second_order_clashes(optimizer: OptimizerConfig, runtime: RuntimeConfig) -> Iterator[str]:
    """Yield one message for each key that cannot be combined with the second-order rule."""
    if runtime.precision not in ("fp32", "tf32"):
        yield (
            f"optimizer.second_order=true needs runtime.precision=fp32 or tf32, not {runtime.precision}: "
            "half precision rounds second derivatives away"
        )
    if runtime.compile:
        yield "optimizer.second_order=true needs runtime.compile=false: torch cannot compile double backward"
    if runtime.grad_checkpointing:
        yield "optimizer.second_order=true needs runtime.grad_checkpointing=false"
    if (runtime.processes or 1) > 1:
        yield f"optimizer.second_order=true runs in one process, not runtime.processes={runtime.processes}"
    for key in ("sync_ascent", "perturb", "ascent_fraction", "interval", "start", "stop"):
        value, default = getattr(optimizer, key), getattr(OptimizerConfig(), key)
        if value != default:
            yield f"optimizer.second_order=true does not go with optimizer.{key}={value}; leave it out"


def sharding_clashes(optimizer: OptimizerConfig) -> Iterator[str]:
    """Yield one message for each optimizer key that cannot be combined with sharded weights."""
    if optimizer.rule == "msam":
        return  # its only state is that of SGD, which is sharded
    if optimizer.rule not in ("sam", "le_sam"):
        yield (
            f"runtime.parallel=fsdp needs optimizer.rule=sam, msam or le_sam, not {optimizer.rule}; use "
            "runtime.parallel=ddp"
        )
        return
    if not optimizer.sync_ascent:
        yield (
            "runtime.parallel=fsdp needs optimizer.sync_ascent=true: the processes share one set of weights, "
            "so they must share one perturbation"
        )
    if optimizer.p != 2 or optimizer.reuse:
        yield "runtime.parallel=fsdp needs optimizer.p=2 and optimizer.reuse=0; use runtime.parallel=ddp"
