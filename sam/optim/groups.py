"""Checks that SAM can use a base optimizer, its parameter groups, their weights and their gradients."""

import inspect
from collections.abc import Iterable, Sequence
from numbers import Real
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sam.optim.memory import any_overlaps, any_sharded, local_parts

SETTINGS = frozenset({"rho", "adaptive", "perturbed"})  # the keys that SAM adds to a parameter group


def check_number(name: str, value: Any) -> None:
    """Make sure that a setting is a number.

    Raises:
        TypeError: If it is something else, such as text or a tensor.
    """
    if isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be a number, got a tensor; use float({name}). (To check a tensor in each step, the "
            "program would have to wait for the device.)"
        )
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")


def check_positive(name: str, value: Any) -> None:
    """Make sure that a setting is a finite number above 0.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is out of range.
    """
    check_number(name, value)
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be finite and > 0, got {value}")


def check_ball(p: Any, random_direction: bool) -> None:
    """Make sure that p is a number in its range, and fits random_direction.

    Raises:
        TypeError: If p is not a number.
        ValueError: If p is out of range, or is not 2 with a random direction.
    """
    check_number("p", p)
    if not p > 1:
        raise ValueError(f"p must be greater than 1, infinity included, got {p}")
    if p != 2 and random_direction:
        raise ValueError(f"random_direction=True needs p=2, got p={p}; a random direction has length rho")


def check_rho(rho: Any) -> None:
    """Make sure that rho is a number in its range.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is negative or not finite.
    """
    check_number("rho", rho)
    if not 0 <= rho < float("inf"):
        raise ValueError(f"rho must be finite and >= 0, got {rho}")


def check_settings(settings: dict[str, Any], p: float, random_direction: bool) -> None:
    """Make sure that a group's settings are in range and fit the p and random_direction of the optimizer.

    Raises:
        TypeError: If rho is not a number.
        ValueError: If rho is out of range, or adaptive is combined with p != 2 or random_direction.
    """
    check_rho(settings["rho"])
    if settings["adaptive"] and (p != 2 or random_direction):
        raise ValueError(
            f"adaptive=True needs p=2 and random_direction=False, got p={p} and "
            f"random_direction={random_direction}"
        )


def check_weights(weights: Iterable[Tensor]) -> None:
    """Make sure that SAM can perturb these weights.

    Raises:
        TypeError: If some are complex or sparse.
    """
    for weight in weights:
        if weight.is_complex() or weight.layout != torch.strided:
            kind = "complex" if weight.is_complex() else "sparse"
            raise TypeError(
                f"SAM perturbs real and dense parameters, got a {kind} one; put it into a parameter group "
                "with perturbed=False"
            )


def checked_gradients(weights: Sequence[Tensor], is_plain: bool) -> list[Tensor]:
    """Return the gradients of some weights, after a check that SAM can move the weights along them.

    Args:
        weights: Weights with gradients in `.grad`.
        is_plain: Whether p is 2 and the direction is not random.

    Raises:
        RuntimeError: If entries of a weight share memory.
        TypeError: If some gradients are sparse.
        ValueError: If weights are sharded over processes, and is_plain is False.
    """
    grads: list[Any] = [weight.grad for weight in weights]
    if set(map(attrgetter("layout"), grads)) != {torch.strided}:
        raise TypeError(
            "SAM perturbs along dense gradients, got a sparse one; use nn.Embedding(sparse=False), or put "
            "its parameter into a group with perturbed=False"
        )
    if not is_plain and any_sharded(weights):
        raise ValueError("sharded parameters need p=2 and random_direction=False")
    check_memory(weights)
    return grads


def check_memory(weights: Sequence[Tensor]) -> None:
    """Make sure that SAM can move these weights in place.

    Raises:
        RuntimeError: If entries of a weight share memory.
        ValueError: If FullyShardedDataParallel (FSDP1) shards the weights over several processes. They are
            plain tensors, so the norm over all processes is not known.
    """
    if any(getattr(weight, "_fsdp_flattened", False) for weight in weights) and _num_processes() > 1:
        raise ValueError(
            "FullyShardedDataParallel shards the parameters, so SAM does not see the norm of the whole "
            "gradient; use fully_shard (FSDP2) or DistributedDataParallel"
        )
    if any_overlaps(local_parts(weights)):
        raise RuntimeError(
            "the entries of a parameter share memory, as those of an expanded tensor do, so SAM cannot move "
            "them; make a copy of the parameter with clone() first"
        )


def _num_processes() -> int:
    is_joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if is_joined else 1


def sign_of(group: dict[str, Any]) -> int:
    """Return -1 if the base optimizer maximizes the loss of this group (maximize=True), else 1."""
    return -1 if group.get("maximize") else 1


def ascents(weights: Sequence[Tensor], groups: Iterable[dict[str, Any]]) -> list[Tensor]:
    """Return the gradients of the objectives that the base optimizer minimizes.

    These are the gradients in `.grad`, or zeros if there is none. With maximize=True, they are negated.
    """
    maximized = {weight for group in groups if sign_of(group) < 0 for weight in group["params"]}
    grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    return [-grad if w in maximized else grad for w, grad in zip(weights, grads, strict=True)]


def parts_that_move(
    groups: Iterable[dict[str, Any]], among: set[Tensor] | None = None, is_signed: bool = True
) -> dict[tuple[float, int], list[Tensor]]:
    """Return the weights that have gradients, by rho and sign; the weights of one key move in one call.

    With maximize=True, the base optimizer minimizes -loss. Against the gradient of the loss, -loss rises, so
    the sign is -1.

    Args:
        groups: The groups that are perturbed.
        among: The weights that may move; None for all.
        is_signed: Whether the sign matters. It does not for random directions: all signs are then 1.
    """
    parts: dict[tuple[float, int], list[Tensor]] = {}
    for group in sorted(groups, key=lambda group: group["rho"]):
        weights = [w for w in group["params"] if w.grad is not None and (among is None or w in among)]
        if weights:
            sign = sign_of(group) if is_signed else 1
            parts.setdefault((group["rho"], sign), []).extend(weights)
    return parts


def check_base(base: Optimizer) -> None:
    """Make sure that SAM can use a base optimizer.

    Raises:
        TypeError: If its step() cannot be called without a closure.
        ValueError: If it has a setting with the same name as one of SAM's: rho, adaptive or perturbed.
    """
    name = type(base).__name__
    _, *parameters = inspect.signature(type(base).step).parameters.values()  # without self
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(parameter.default is parameter.empty for parameter in positional):
        raise TypeError(
            f"{name}.step() needs a closure, which computes the gradient several times; SAM needs a base "
            "optimizer that steps with the gradient in .grad, such as torch.optim.SGD"
        )
    taken = sorted(SETTINGS & base.defaults.keys())
    if taken:
        raise ValueError(
            f"{name} has a setting of its own with the name {taken[0]!r}, and SAM has one too, in the same "
            "parameter groups; choose another base optimizer"
        )


def check_arguments(base_class: type[Optimizer], sam_class: type[Optimizer]) -> None:
    """Make sure that no argument of a base optimizer's class has the name of an argument of SAM.

    Args:
        base_class: The class of the base optimizer.
        sam_class: SAM, or a variant of it.

    Raises:
        ValueError: If one has.
    """
    own, others = (inspect.signature(one).parameters.keys() for one in (sam_class, base_class))
    taken = sorted(own & others - {"params", "base_optimizer", "base_arguments"})
    if taken:
        name = sam_class.__name__
        raise ValueError(
            f"{base_class.__name__} has an argument with the name {taken[0]!r}, and so has {name}; create "
            f"the base optimizer yourself and give it to {name}"
        )


def check_same_parameters(params: Any, base: Optimizer, base_arguments: dict[str, Any]) -> None:
    """Make sure that an existing base optimizer has the same parameters as SAM, and is given no arguments.

    Raises:
        ValueError: If the parameters differ or are given as groups, or if there are arguments.
    """
    if base_arguments:
        named = ", ".join(base_arguments)
        raise ValueError(f"{named}: the base optimizer already exists; set this when you create it")
    given = list(params)
    if any(isinstance(item, dict) for item in given):
        raise ValueError(
            "params must be parameters, not groups, when base_optimizer is an optimizer: it has the groups "
            'already; set rho in its param_groups[i]["rho"]'
        )
    given = [item[1] if isinstance(item, tuple) else item for item in given]
    if set(given) != {weight for group in base.param_groups for weight in group["params"]}:
        raise ValueError("params and the parameters of the base optimizer differ; give both the same")
