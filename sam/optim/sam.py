"""Sharpness-Aware Minimization as a torch optimizer around another torch optimizer.

Foret et al. (2021), Algorithm 1: take the gradient at w, move to w + eps, take the gradient of the same
batch there, return to w and let the base optimizer step with that second gradient.

In a training loop:

    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    loss(model(images), targets).backward()
    optimizer.first_step()                        # w + eps
    loss(model(images), targets).backward()
    optimizer.second_step()                       # back to w, then the base optimizer's step
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sam.perturbation import global_norm, move_, scaled_by_weights


class SAM(torch.optim.Optimizer):
    """SAM with the p = 2 ball of Eq. 2, or that of ASAM, around any torch optimizer.

    Weights come back by copy from a buffer (one copy of the perturbed parameters, allocated once), never by
    subtraction, so rho = 0 is the base optimizer to the bit. Parameters without a gradient in the first
    pass are not perturbed. Nothing waits for the device. Parameter groups are those of the base optimizer,
    to which learning-rate schedulers attach (`base_optimizer`); `rho` and `adaptive` may differ by group.
    Departs from the released code of the paper in weight decay, which the base optimizer adds at w: there it
    is part of the loss of both passes. Adding it to your loss gives that.

    Args:
        params: Parameters or parameter groups.
        base_optimizer: A torch optimizer class, such as torch.optim.SGD.
        rho: Radius of the ball, in weight units; finite and >= 0. The paper uses 0.01 to 0.5.
        adaptive: Scale the ball by |w| (ASAM); rho is then about ten times larger.
        **base_arguments: For the base optimizer, such as lr.

    Raises:
        ValueError: If rho is negative or not finite.
    """

    def __init__(
        self,
        params: Any,
        base_optimizer: type[torch.optim.Optimizer],
        rho: float = 0.05,
        adaptive: bool = False,
        **base_arguments: Any,
    ) -> None:
        super().__init__(params, {"rho": rho, "adaptive": adaptive, **base_arguments})
        self.base_optimizer = base_optimizer(self.param_groups, **base_arguments)
        self.param_groups = self.base_optimizer.param_groups
        self.state = self.base_optimizer.state
        self._saved: dict[Tensor, Tensor] = {}
        self._perturbed: list[Tensor] | None = None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with its own rho, adaptive and base settings if given.

        Raises:
            ValueError: If the group's rho is negative or not finite.
        """
        rho = param_group.get("rho", self.defaults["rho"])
        if not 0 <= rho < float("inf"):
            raise ValueError(f"rho must be finite and >= 0, got {rho}")
        if not hasattr(self, "base_optimizer"):  # called by the constructor of torch's Optimizer
            super().add_param_group(param_group)
            return
        for key in ("rho", "adaptive"):
            param_group.setdefault(key, self.defaults[key])
        self.base_optimizer.add_param_group(param_group)

    @torch.no_grad()
    def perturb(self) -> Tensor:
        """Save the weights and move them to w + eps, from the gradients in `.grad`, which stay as they are.

        Returns:
            The norm that eps was divided by, 0-dimensional: of g, or of |w| g where adaptive.

        Raises:
            RuntimeError: If the weights are already perturbed, or no parameter has a gradient.
        """
        if self._perturbed is not None:
            raise RuntimeError("the weights are already perturbed; call second_step() or restore() first")
        moves: list[tuple[dict[str, Any], list[Tensor], Any]] = []
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                grads: Any = [weight.grad for weight in weights]
                directions = scaled_by_weights(weights, grads) if group["adaptive"] else grads
                moves.append((group, weights, directions))
        if not moves:
            raise RuntimeError("no parameter has a gradient; call backward() before the first step")
        self._save([weight for _, weights, _ in moves for weight in weights])
        norm = global_norm([direction for _, _, directions in moves for direction in directions])
        for group, weights, directions in moves:
            if group["adaptive"]:
                torch._foreach_mul_(directions, weights)
            move_(weights, directions, group["rho"], norm)
        return norm

    def _save(self, weights: list[Tensor]) -> None:
        for weight in weights:
            if weight not in self._saved:
                self._saved[weight] = torch.empty_like(weight)
        torch._foreach_copy_([self._saved[weight] for weight in weights], weights)
        self._perturbed = weights

    @torch.no_grad()
    def restore(self) -> None:
        """Copy the weights of before the perturbation back into their places.

        Raises:
            RuntimeError: If the weights are not perturbed.
        """
        weights = self._perturbed_weights()
        torch._foreach_copy_(weights, [self._saved[weight] for weight in weights])
        self._perturbed = None

    @torch.no_grad()
    def restore_and_compare(self) -> Tensor:
        """Restore, and return the cosine between eps and the gradients in `.grad`.

        For p = 2 that is the cosine between the gradients of the two passes, without a copy of the first.
        With eps stretched to the length of g, cos = ||eps + g||^2 / (2 ||g||^2) - 1: worked out in the
        place of the weights, just before these are copied back.

        Returns:
            0-dimensional; nan where eps or the gradient is zero.
        """
        weights = self._perturbed_weights()
        grads: Any = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        try:
            torch._foreach_sub_(weights, [self._saved[weight] for weight in weights])
            grad_norm = global_norm(grads)
            torch._foreach_mul_(weights, grad_norm / global_norm(weights))
            torch._foreach_add_(weights, grads)
            cosine = global_norm(weights) ** 2 / (2 * grad_norm**2) - 1
        finally:
            self.restore()
        return cosine

    def _perturbed_weights(self) -> list[Tensor]:
        if self._perturbed is None:
            raise RuntimeError("the weights are not perturbed; call first_step() before the second step")
        return self._perturbed

    @torch.no_grad()
    def first_step(self, zero_grad: bool = True) -> None:
        """Move to w + eps (Eq. 2), from the gradients of the first pass.

        Args:
            zero_grad: Clear the gradients, so that the second backward starts from nothing.
        """
        self.perturb()
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad: bool = True) -> None:
        """Return to w and let the base optimizer step with the gradients taken at w + eps (Eq. 3).

        Args:
            zero_grad: Clear the gradients afterwards.
        """
        self.restore()
        self.base_optimizer.step()
        if zero_grad:
            self.zero_grad()

    def step(self, closure: Callable[[], float | Tensor] | None = None) -> Any:
        """Do both passes of one update.

        Args:
            closure: Computes the loss, calls backward and returns the loss. It is called at w + eps; and
                before that at w, unless gradients of the first pass are already there.

        Returns:
            What the last call of the closure returned.

        Raises:
            ValueError: If there is no closure.
        """
        if closure is None:
            raise ValueError("SAM takes two passes: call step(closure), or first_step() and second_step()")
        closure = torch.enable_grad()(closure)
        if all(weight.grad is None for group in self.param_groups for weight in group["params"]):
            closure()
        self.first_step()
        try:
            loss = closure()
        except BaseException:
            self.restore()
            raise
        self.second_step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state; it holds the parameter groups with rho and adaptive."""
        return self.base_optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what state_dict() returned."""
        self.base_optimizer.load_state_dict(state_dict)
        self.param_groups = self.base_optimizer.param_groups
        self.state = self.base_optimizer.state
