"""The base class of the variants of SAM whose eps also depends on the gradients of earlier updates."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sam.optim.memory import any_sharded
from sam.optim.perturbation import find_directions, global_norm, move_
from sam.optim.sam import SAM


class AveragedSAM(SAM):
    """SAM along a direction computed from the gradient g and a running average a of earlier gradients.

    After each update's direction is computed, a <- decay * a + (1 - decay) * g. In the first update, a = g. A
    gradient that is not finite does not change the average. (If the first gradient of a weight is not finite,
    its average begins at zero.) A weight without a gradient keeps its average.

    The average has the length of the gradients, so `.grad` must not contain a loss scale, and must be the
    mean over accumulated micro-batches, not their sum. If several processes share the weights, `.grad` must
    be the same in all of them in first_step(), as it is after the backward pass of DistributedDataParallel.
    One more copy of the perturbed parameters is kept, and saved by state_dict(). For gradients in half
    precision it is in float32: the average moves by (1 - decay) * (g - a), which half precision would round
    away.

    perturb() does not change the average. So each micro-batch of an update may have its own eps from the same
    average: call perturb() and restore() for each of them, then update_average() once with the mean of their
    gradients.

    Args:
        params: As in SAM.
        base_optimizer: As in SAM.
        rho: As in SAM.
        decay: 0 <= decay < 1.
        adaptive: As in SAM; the direction takes the place of the gradient.
        p: As in SAM; the direction takes the place of the gradient.
        **base_arguments: As in SAM.
    """

    _can_climb = False

    def __init__(
        self,
        params: Any,
        base_optimizer: type[Optimizer] | Optimizer,
        *,
        rho: float,
        decay: float,
        adaptive: bool,
        p: float,
        **base_arguments: Any,
    ) -> None:
        self._decay = decay
        self._averages: dict[Tensor, Tensor] = {}
        super().__init__(params, base_optimizer, rho, adaptive, p, random_direction=False, **base_arguments)

    def _along(self, grads: list[Tensor], averages: list[Tensor]) -> list[Tensor]:
        """Return the directions of eps as new tensors, given the averages before this update."""
        raise NotImplementedError

    @property
    def follows_gradient(self) -> bool:
        """False: eps is not a multiple of the gradient."""
        return False

    def first_step(self, zero_grad: bool = True) -> None:
        """Move to w + eps, and add the gradients to the average.

        Args:
            zero_grad: Clear the gradients, so that the second backward() does not add to them.
        """
        self.perturb()
        try:
            self.update_average()
        except BaseException:
            self._give_up()
            raise
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def update_average(self, gradients: Mapping[Tensor, Tensor] | None = None) -> None:
        """Add the gradient of an update to the average; first_step() does this itself.

        Args:
            gradients: The mean gradient of the update for each weight; None for those in `.grad`. Those of
                weights that are not perturbed are left out.
        """
        weights = [weight for group in self._perturbed_groups() for weight in group["params"]]
        if gradients is None:
            gradients = {weight: weight.grad for weight in weights if weight.grad is not None}
        weights = [weight for weight in weights if weight in gradients]
        if not weights:
            return
        grads = [gradients[weight] for weight in weights]
        norm = global_norm(grads)
        is_finite = torch.isfinite(norm)
        averages = []
        for weight, grad in zip(weights, grads, strict=True):
            average = self._average_like(weight, grad)
            if average is None:
                average = _precise(torch.where(is_finite.to(grad.device), grad, 0))
            averages.append(average)
        grads = list(map(_precise, grads))
        one_or_zero = torch.where(is_finite, torch.ones_like(norm), 0)  # with 0, move_() does not move
        move_(averages, torch._foreach_sub(grads, averages), 1 - self._decay, one_or_zero)
        self._averages.update(zip(weights, averages, strict=True))

    def _average_like(self, weight: Tensor, grad: Tensor) -> Tensor | None:
        """Return the average of a weight for its gradient; None if there is none of the gradient's shape."""
        average = self._averages.get(weight)
        if average is None or average.shape != grad.shape:
            return None
        dtype = torch.float32 if _is_half(grad) else grad.dtype
        if average.dtype == dtype and average.device == grad.device:
            return average  # to() is an operator call, also if it changes nothing
        return average.to(grad.device, dtype)

    def _find_directions(
        self, weights: list[Tensor], grads: list[Tensor], adaptive: set[Tensor]
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        if any_sharded(weights):
            raise ValueError(f"{type(self).__name__} does not work with sharded parameters; use SAM")
        averages = [self._average_like(weight, grad) for weight, grad in zip(weights, grads, strict=True)]
        pairs = list(zip(grads, averages, strict=True))
        known = [(_precise(grad), average) for grad, average in pairs if average is not None]
        remaining = iter(self._along([grad for grad, _ in known], [a for _, a in known]) if known else [])
        along = [grad if average is None else _like(next(remaining), grad) for grad, average in pairs]
        directions, length, _ = find_directions(weights, along, adaptive, self._p, False)
        return directions, length, global_norm(grads)

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "averages": self._by_number(self._averages)}

    def _load_own_state(self, own: dict[str, Any]) -> None:
        super()._load_own_state(own)
        weights = self._weights()
        self._averages.clear()  # not a new dict: wrappers such as Lightning's copy the attributes
        for number, average in own.get("averages", {}).items():
            self._averages[weights[number]] = average.to(weights[number].device, copy=True)


def _precise(tensor: Tensor) -> Tensor:
    """Return a tensor in float32 if it is in half precision; else the tensor itself."""
    return tensor.float() if _is_half(tensor) else tensor


def _is_half(tensor: Tensor) -> bool:
    return tensor.itemsize < 4


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a tensor in the dtype of another one."""
    return tensor if tensor.dtype == other.dtype else tensor.to(other.dtype)
