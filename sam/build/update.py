"""From a config to an update: optimizer, rule and passes.

Errors in values that can only be found here become a ConfigError.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import nn

from sam.build.resolved import Resolved
from sam.config.optimizer import OptimizerConfig
from sam.models.gates import Gate, set_true_gradient
from sam.optim import SAM
from sam.optim.running_statistics import RunningStatistics
from sam.optim.schedule import Ascents
from sam.system.errors import user_errors
from sam.training.forward_backward import ForwardBackward
from sam.training.look_sam import OrthogonalReuse
from sam.training.precision import Precision
from sam.training.rule import Rule, SAMRule, SGDRule
from sam.training.second_order import SecondOrderSAMRule
from sam.training.update import Update


def make_update(
    chosen: OptimizerConfig,
    network: nn.Module,
    called: nn.Module,
    resolved: Resolved,
    *,
    num_steps: int,
    label_smoothing: float = 0.0,
    unsynced: Callable[[], AbstractContextManager[object]] | None = None,
) -> Update:
    """Return the update of a run, with its rule and its optimizer.

    Args:
        chosen: The optimizer section of the config.
        network: The network that holds the parameters and buffers.
        called: The module that returns logits: the network itself, or the network compiled or wrapped.
        resolved: The precision, device and m for this process.
        num_steps: Number of updates in the whole run.
        label_smoothing: 0 <= label_smoothing < 1.
        unsynced: As in ForwardBackward.
    """
    in_loss = chosen.weight_decay_in == "loss"
    forward_backward = ForwardBackward(
        called,
        Precision(resolved.precision, resolved.device),
        RunningStatistics(network),
        label_smoothing=label_smoothing,
        weight_decay_in_loss=chosen.weight_decay if in_loss else 0.0,
        unsynced=unsynced,
    )
    base: dict[str, Any] = {
        "lr": chosen.lr,
        "momentum": chosen.momentum,
        "nesterov": chosen.nesterov,
        "weight_decay": 0.0 if in_loss else chosen.weight_decay,
    }
    with user_errors("optimizer"):
        rule = _rule(chosen, network, forward_backward, base, num_steps)
    return Update(rule, forward_backward, resolved.m, chosen.clip_norm)


def _rule(
    chosen: OptimizerConfig,
    network: nn.Module,
    forward_backward: ForwardBackward,
    base: dict[str, Any],
    num_steps: int,
) -> Rule:
    """Return the rule that a config names, around SGD with the given arguments."""
    if chosen.name == "sgd":
        return SGDRule(forward_backward, torch.optim.SGD(network.parameters(), **base))
    # set_true_gradient() visits all layers in every micro-batch, so it is used only if there is a gate.
    gated = any(isinstance(layer, Gate) for layer in network.modules())
    passes: dict[str, Any] = {
        "true_gradient": partial(set_true_gradient, network) if gated and chosen.true_gradient else None,
        "replay": chosen.replay,
    }
    if chosen.second_order:
        sgd = torch.optim.SGD(network.parameters(), **base)
        return SecondOrderSAMRule(forward_backward, sgd, rho=chosen.rho, **passes)
    sam = SAM(
        _groups(chosen, network),
        torch.optim.SGD,
        rho=chosen.rho,
        adaptive=chosen.adaptive,
        p=chosen.p,
        random_direction=chosen.direction == "random",
        **base,
    )
    return SAMRule(
        forward_backward,
        sam,
        **passes,
        ascent_steps=chosen.ascent_steps,
        ascent_step_size=chosen.ascent_step_size,
        ascent_fraction=chosen.ascent_fraction,
        ascents=Ascents.between(chosen.start, chosen.stop, num_steps, chosen.interval),
        reuse=OrthogonalReuse(sam, chosen.reuse) if chosen.reuse else None,
        sync_ascent=chosen.sync_ascent,
    )


def _groups(chosen: OptimizerConfig, network: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters in one group; with perturb=norm, those that are not perturbed in a second one.

    Raises:
        ValueError: If the network has no normalisation layer to perturb.
    """
    if chosen.perturb == "all":
        return [{"params": list(network.parameters())}]
    layers = [layer for layer in network.modules() if "norm" in type(layer).__name__.lower()]
    norm = {weight for layer in layers for weight in layer.parameters(recurse=False)}
    if not norm:
        raise ValueError("perturb=norm: this model has no normalisation layer with weights; use perturb=all")
    others = [weight for weight in network.parameters() if weight not in norm]
    return [
        {"params": [weight for weight in network.parameters() if weight in norm]},
        {"params": others, "perturbed": False},
    ]
