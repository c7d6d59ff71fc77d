"""Checks a config: the range of every key, and keys that cannot be combined. Imports no torch."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from sam.config.analysis import analysis_clashes, schedule_clashes
from sam.config.augmentation import augmentation_clashes
from sam.config.dataset import dataset_clashes
from sam.config.model import model_clashes
from sam.config.optimizer import optimizer_clashes
from sam.config.runtime import runtime_clashes
from sam.config.schema import EvaluateConfig, TrainConfig, config_items
from sam.system.errors import ConfigError


def range_fault(value: Any, rules: Any) -> str | None:
    """Return what is allowed, in words, if a value is not allowed; None if it is."""
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
    """Yield one message for each set of keys that cannot be combined."""
    if config.m and config.batch_size % config.m:
        yield f"m={config.m} does not divide batch_size={config.batch_size}; choose a divisor or m=null"
    if not config.outputs:
        yield "outputs is empty; name a folder"
    if config.optimizer.warmup_epochs >= config.epochs > 0:
        yield (
            f"optimizer.warmup_epochs={config.optimizer.warmup_epochs:g} leaves no epoch of "
            f"epochs={config.epochs} after the warm-up; lower it, or raise epochs"
        )
    if config.ema_decay is not None and config.runtime.parallel == "fsdp":
        yield (
            f"ema_decay={config.ema_decay} averages whole weights, but runtime.parallel=fsdp shards them; "
            "use runtime.parallel=ddp, or ema_decay=null"
        )
    yield from dataset_clashes(config.dataset, config.batch_size)
    yield from model_clashes(config.model)
    yield from augmentation_clashes(config.augmentation, config.dataset)
    yield from optimizer_clashes(config.optimizer, config.runtime, config.m or config.batch_size)
    yield from schedule_clashes(config.analysis, config.runtime)
    yield from runtime_clashes(config.runtime, config.model)


def check(config: Any) -> None:
    """Check the ranges and the combinations of the keys of one config.

    Raises:
        ConfigError: If anything is not allowed; the message has one line for each fault.
    """
    faults = [
        f"{key}={value}: allowed is {allowed}"
        for key, value, field in config_items(config)
        if (allowed := range_fault(value, field.metadata))
    ]
    faults += analysis_clashes(config.analysis)
    if isinstance(config, TrainConfig):
        faults += clashes(config)
    elif config.analysis.name != "none" and config.split != EvaluateConfig().split:
        faults.append(
            f"split={config.split} applies only without an analysis; with analysis={config.analysis.name}, "
            "set analysis.split=train or test"
        )
    if faults:
        raise ConfigError("\n".join(faults))
