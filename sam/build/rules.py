"""From a config to a rule. Each value of optimizer.rule has one entry in MAKERS."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from sam.config.optimizer import OptimizerConfig
from sam.models.gates import Gate, set_true_gradient
from sam.optim import FSAM, LESAM, MSAM, S2SAM, SAM, VaSSO
from sam.optim.averaged import AveragedSAM
from sam.optim.one_pass import OnePassSAM
from sam.optim.schedule import Ascents, rise_and_fall
from sam.training.averaged import AveragedSAMRule
from sam.training.distributed import World
from sam.training.forward_backward import ForwardBackward
from sam.training.functional_sam import FunctionalSAMRule
from sam.training.le_sam import LESAMRule
from sam.training.look_sam import OrthogonalReuse
from sam.training.one_pass import OnePassRule
from sam.training.rule import Rule, SAMRule, SGDRule
from sam.training.second_order import SecondOrderSAMRule
from sam.training.stable_sam import StableSAMRule


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts that a rule is made of.

    Attributes:
        chosen: The optimizer section of the config.
        network: The network that holds the parameters.
        forward_backward: Makes the passes.
        base_class: The class of the base optimizer.
        base: Its arguments, without the parameters.
        num_steps: Number of updates in the whole run.
        world: The processes that share each batch.
    """

    chosen: OptimizerConfig
    network: nn.Module
    forward_backward: ForwardBackward
    base_class: type[torch.optim.Optimizer]
    base: dict[str, Any]
    num_steps: int
    world: World

    def plain(self) -> torch.optim.Optimizer:
        """Return the base optimizer of all parameters."""
        return self.base_class(self.network.parameters(), **self.base)

    def passes(self) -> dict[str, Any]:
        """Return what the two passes of a rule share: true_gradient and replay, as in SAMRule."""
        # set_true_gradient() visits all layers in every micro-batch, so it is used only if there is a gate.
        gated = any(isinstance(layer, Gate) for layer in self.network.modules())
        switch = partial(set_true_gradient, self.network) if gated and self.chosen.true_gradient else None
        return {"true_gradient": switch, "replay": self.chosen.replay}

    def geometry(self) -> dict[str, Any]:
        """Return the arguments of every SAM: its parameters, base optimizer and ball."""
        groups = _groups(self.chosen, self.network)
        ball = {"rho": self.chosen.rho, "adaptive": self.chosen.adaptive}
        return {"params": groups, "base_optimizer": self.base_class, **ball, **self.base}

    def ascents(self) -> dict[str, Any]:
        """Return which updates perturb, with which images, and in which processes, as in SAMRule."""
        chosen = self.chosen
        return {
            "ascent_fraction": chosen.ascent_fraction,
            "ascents": Ascents.between(chosen.start, chosen.stop, self.num_steps, chosen.interval),
            "sync_ascent": chosen.sync_ascent,
        }


def make_rule(parts: Parts) -> Rule:
    """Return the rule that a config names.

    Raises:
        ValueError: If the network or the number of updates does not fit the rule.
    """
    if parts.chosen.name == "sgd":
        return SGDRule(parts.forward_backward, parts.plain())
    return MAKERS[parts.chosen.rule](parts)


def _sam(parts: Parts) -> Rule:
    chosen = parts.chosen
    if chosen.second_order:
        return SecondOrderSAMRule(parts.forward_backward, parts.plain(), rho=chosen.rho, **parts.passes())
    sam = SAM(**parts.geometry(), p=chosen.p, random_direction=chosen.direction == "random")
    return SAMRule(
        parts.forward_backward,
        sam,
        **parts.passes(),
        **parts.ascents(),
        ascent_steps=chosen.ascent_steps,
        ascent_step_size=chosen.ascent_step_size,
        reuse=OrthogonalReuse(sam, chosen.reuse) if chosen.reuse else None,
    )


def _f_sam(parts: Parts) -> Rule:
    chosen = parts.chosen
    sam = FSAM(**parts.geometry(), p=chosen.p, sigma=chosen.f_sam_sigma, decay=chosen.f_sam_decay)
    return _averaged(parts, sam)


def _vasso(parts: Parts) -> Rule:
    return _averaged(parts, VaSSO(**parts.geometry(), p=parts.chosen.p, theta=parts.chosen.vasso_theta))


def _averaged(parts: Parts, sam: AveragedSAM) -> Rule:
    return AveragedSAMRule(parts.forward_backward, sam, parts.world, **parts.passes(), **parts.ascents())


def _le_sam(parts: Parts) -> Rule:
    chosen = parts.chosen

    def sigma_at(step: int) -> float:
        factor = rise_and_fall(step, parts.num_steps, chosen.le_sam_warm_up, chosen.le_sam_fall)
        return chosen.le_sam_sigma * factor

    sam = LESAM(**parts.geometry(), sigma=chosen.le_sam_sigma)
    return LESAMRule(parts.forward_backward, sam, sigma_at, **parts.passes(), **parts.ascents())


def _groups(chosen: OptimizerConfig, network: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters in one group, or in one for each way to perturb; unperturbed ones come last.

    Raises:
        ValueError: If the network has no normalisation layer to perturb.
    """
    layers = [layer for layer in network.modules() if "norm" in type(layer).__name__.lower()]
    norm = {weight for layer in layers for weight in layer.parameters(recurse=False)}
    if chosen.perturb == "norm" and not norm:
        raise ValueError("perturb=norm: this model has no normalisation layer with weights; use perturb=all")
    scaled, unscaled, unperturbed = [], [], []
    for name, weight in network.named_parameters():
        if chosen.perturb == "norm" and weight not in norm:
            unperturbed.append(weight)
        elif chosen.adaptive and not _is_scaled(name, weight, chosen.adaptive_for):
            unscaled.append(weight)
        else:
            scaled.append(weight)
    groups: list[dict[str, Any]] = [
        {"params": scaled},
        {"params": unscaled, "adaptive": False},
        {"params": unperturbed, "perturbed": False},
    ]
    return [group for group in groups if group["params"]]


def _is_scaled(name: str, weight: nn.Parameter, adaptive_for: str) -> bool:
    """Return whether ASAM scales the ball for a weight. Its code looks for "weight" in the name, too."""
    is_kernel = weight.ndim > 1
    return adaptive_for == "all" or ("weight" in name and (is_kernel or adaptive_for == "not_biases"))


def _two_passes(kind: type[SAMRule], parts: Parts) -> Rule:
    return kind(parts.forward_backward, SAM(**parts.geometry()), **parts.passes(), **parts.ascents())


def _one_pass(kind: type[OnePassSAM], parts: Parts) -> Rule:
    weights = parts.network.parameters()
    optimizer = kind(weights, parts.base_class, rho=parts.chosen.rho, **parts.base)
    return OnePassRule(parts.forward_backward, optimizer)


# By the value of optimizer.rule.
MAKERS: dict[str, Callable[[Parts], Rule]] = {
    "sam": _sam,
    "msam": partial(_one_pass, MSAM),
    "s2_sam": partial(_one_pass, S2SAM),
    "f_sam": _f_sam,
    "vasso": _vasso,
    "le_sam": _le_sam,
    "functional_sam": partial(_two_passes, FunctionalSAMRule),
    "stable_sam": partial(_two_passes, StableSAMRule),
}
