"""SAM with the term that Foret et al. (2021) drop from Eq. 3: the derivative of eps."""

from collections.abc import Callable, Hashable, Mapping
from functools import partial

import torch
from torch import Tensor

from sam.optim.groups import sign_of
from sam.optim.perturbation import differentiable_perturbation
from sam.training.forward_backward import ForwardBackward, pass_sums
from sam.training.random_state import RandomState
from sam.training.sam_sums import SAM_SUMS, sam_sums


class SecondOrderSAMRule:
    """Two passes, and the exact gradient of L(w + eps(w)), with eps(w) = rho * g / ||g||_2, g = dL(w)/dw.

    d/dw L(w + eps(w)) = v + (d eps / dw)^T v, where v is the gradient at w + eps (Eq. 3 with all its terms;
    appendix C.4, Figures 4 and 5). The second term contains the Hessian, so the first pass is differentiated
    twice, and the graphs of both passes are in memory at the same time.
    The sums are SAM_SUMS, without the cosine. Autograd must be able to differentiate the model twice: it must
    not be compiled, and must not use gradient checkpointing.

    Args:
        forward_backward: Makes a pass; its model is called with other weights.
        optimizer: Makes the step.
        rho: Radius of the ball; finite and >= 0.
        true_gradient: As in SAMRule.
        replay: As in SAMRule.

    Raises:
        ValueError: If rho is out of range, if there are several processes, or if there is a loss scale.
    """

    sums: tuple[str, ...] = SAM_SUMS

    def __init__(
        self,
        forward_backward: ForwardBackward,
        optimizer: torch.optim.Optimizer,
        rho: float,
        true_gradient: Callable[[bool], None] | None = None,
        replay: bool = True,
    ) -> None:
        if not 0 <= rho < float("inf"):
            raise ValueError(f"rho must be finite and >= 0, got {rho}")
        if forward_backward.is_distributed:
            raise ValueError("second-order SAM runs in one process; start it without torchrun")
        if forward_backward.precision.scales_loss:
            raise ValueError("second-order SAM cannot scale the loss; use precision fp32 instead of fp16")
        self.optimizer = self.base_optimizer = optimizer
        self._pass = forward_backward
        self._rho = rho
        self._true_gradient = true_gradient or (lambda _: None)
        self._replay = replay
        named = forward_backward.model.named_parameters()
        self._weights = {name: weight for name, weight in named if weight.requires_grad}
        signs = {weight: sign_of(group) for group in optimizer.param_groups for weight in group["params"]}
        self._signs = [signs.get(weight, 1) for weight in self._weights.values()]

    def begin(self, step: int) -> None:
        """Do nothing: every update is the same."""

    def kind(self) -> Hashable:
        """Return one value: every update is the same."""
        return None

    def end(self) -> None:
        """Do nothing."""

    def accumulate(
        self, images: Tensor, targets: Tensor, share: float, sync: bool, clean_targets: Tensor | None = None
    ) -> Tensor:
        """Add the gradient of L(w + eps(w)); see Rule."""
        draws = RandomState(images.device)
        model, weights = self._pass.model, self._weights
        self._true_gradient(True)
        logits, loss = self._pass.forward(model, images, targets, clean=True)
        clean = pass_sums(logits.detach(), loss.detach(), targets, clean_targets)
        eps, norm = differentiable_perturbation(self._gradient(loss), self._rho)
        self._true_gradient(False)
        if self._replay:
            draws.restore()
        moves = zip(weights, self._signs, eps, strict=True)
        moved = {name: torch.add(weights[name], move, alpha=sign) for name, sign, move in moves}
        call = partial(torch.func.functional_call, model, moved)
        logits, loss = self._pass.forward(call, images, targets, clean=False)
        ((loss + self._penalty(moved)) * share).backward()
        perturbed = pass_sums(logits.detach(), loss.detach(), targets, None)
        return sam_sums(clean, perturbed, norm.detach())

    def _gradient(self, loss: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient of loss and penalty at w, as a function of w; zero for unused parameters."""
        return torch.autograd.grad(
            loss + self._penalty(self._weights),
            list(self._weights.values()),
            create_graph=True,
            materialize_grads=True,
        )

    def _penalty(self, weights: Mapping[str, Tensor]) -> Tensor | float:
        """Return 0.5 * weight_decay_in_loss * sum(w^2)."""
        if not self._pass.weight_decay_in_loss:
            return 0.0
        squares = torch.stack([weight.square().sum() for weight in weights.values()])
        return 0.5 * self._pass.weight_decay_in_loss * squares.sum()
