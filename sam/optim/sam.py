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

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sam.perturbation import dual_directions, global_norm, move_, project_, scaled_by_weights


class SAM(torch.optim.Optimizer):
    """SAM with the ball of Eq. 2, or that of ASAM, around any torch optimizer.

    Weights come back by copy from a buffer (one copy of the perturbed parameters, allocated once), never by
    subtraction, so rho = 0 is the base optimizer to the bit. Parameters without a gradient in the first
    pass are not perturbed. Nothing waits for the device. Parameter groups are those of the base optimizer,
    to which learning-rate schedulers attach (`base_optimizer`); `rho` and `adaptive` may differ by group,
    p and the kind of direction may not: they belong to the one norm, and are not part of the saved state.
    Departs from the released code of the paper in weight decay, which the base optimizer adds at w: there it
    is part of the loss of both passes. Adding it to your loss gives that.

    Args:
        params: Parameters or parameter groups.
        base_optimizer: A torch optimizer class, such as torch.optim.SGD.
        rho: Radius of the ball, in weight units; finite and >= 0. The paper uses 0.01 to 0.5.
        adaptive: Scale the ball by |w| (ASAM); rho is then about ten times larger.
        p: Norm of the ball, 1 < p <= infinity: eps of Eq. 2 has p-norm rho. Only 2 costs no copy of g.
        random_direction: Move to rho * z / ||z||_2 instead, z Gaussian from torch's default generator of
            the weights' device: the paper's comparison with random perturbations (appendix C.5).
        **base_arguments: For the base optimizer, such as lr.

    Raises:
        ValueError: If rho is negative or not finite, if p is out of range, or if more than one of
            adaptive, a p other than 2, and random_direction is asked for.
    """

    def __init__(
        self,
        params: Any,
        base_optimizer: type[torch.optim.Optimizer],
        rho: float = 0.05,
        adaptive: bool = False,
        p: float = 2.0,
        random_direction: bool = False,
        **base_arguments: Any,
    ) -> None:
        if not p > 1:
            raise ValueError(f"p must be greater than 1, infinity included, got {p}")
        if p != 2 and random_direction:
            raise ValueError(f"random_direction=True needs p=2, got p={p}; a random direction has length rho")
        self._p = p
        self._random_direction = random_direction
        super().__init__(params, {"rho": rho, "adaptive": adaptive, **base_arguments})
        self.base_optimizer = base_optimizer(self.param_groups, **base_arguments)
        self.param_groups = self.base_optimizer.param_groups
        self.state = self.base_optimizer.state
        self._saved: dict[Tensor, Tensor] = {}
        self._perturbed: list[Tensor] | None = None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with its own rho, adaptive and base settings if given.

        Raises:
            ValueError: If the group's rho is negative or not finite, or adaptive does not go with p or
                random_direction.
        """
        rho = param_group.get("rho", self.defaults["rho"])
        if not 0 <= rho < float("inf"):
            raise ValueError(f"rho must be finite and >= 0, got {rho}")
        if param_group.get("adaptive", self.defaults["adaptive"]) and not self._is_plain:
            raise ValueError(
                f"adaptive=True needs p=2 and random_direction=False, got p={self._p} and "
                f"random_direction={self._random_direction}"
            )
        if not hasattr(self, "base_optimizer"):  # called by the constructor of torch's Optimizer
            super().add_param_group(param_group)
            return
        for key in ("rho", "adaptive"):
            param_group.setdefault(key, self.defaults[key])
        self.base_optimizer.add_param_group(param_group)

    @property
    def _is_plain(self) -> bool:
        return self._p == 2 and not self._random_direction

    @property
    def follows_gradient(self) -> bool:
        """Whether eps is a multiple of the gradient: p = 2, not random, not adaptive."""
        return self._is_plain and not any(group["adaptive"] for group in self.param_groups)

    @property
    def is_perturbed(self) -> bool:
        """Whether the weights stand at w + eps."""
        return self._perturbed is not None

    @torch.no_grad()
    def perturb(self) -> Tensor:
        """Save the weights and move them to w + eps, from the gradients in `.grad`, which stay as they are.

        Returns:
            The 2-norm of g, or of |w| g where adaptive; 0-dimensional.

        Raises:
            RuntimeError: If the weights are already perturbed, or no parameter has a gradient.
        """
        if self.is_perturbed:
            raise RuntimeError("the weights are already perturbed; call second_step() or restore() first")
        groups = [(group, [w for w in group["params"] if w.grad is not None]) for group in self.param_groups]
        weights = [weight for _, members in groups for weight in members]
        if not weights:
            raise RuntimeError("no parameter has a gradient; call backward() before the first step")
        self._save(weights)
        adaptive = [weight for group, members in groups if group["adaptive"] for weight in members]
        directions, length, norm = self._directions(weights, adaptive)
        remaining = iter(directions)
        for group, members in groups:
            move_(members, list(itertools.islice(remaining, len(members))), group["rho"], length)
        return norm

    def _directions(
        self, weights: list[Tensor], adaptive: list[Tensor]
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return directions, the length they are divided by to have norm 1, and the gradient's norm."""
        grads: list[Any] = [weight.grad for weight in weights]
        if self._random_direction:
            noise = [torch.randn_like(grad) for grad in grads]
            return noise, global_norm(noise), global_norm(grads)
        if self._p != 2:
            return *dual_directions(grads, self._p), global_norm(grads)
        if not adaptive:
            norm = global_norm(grads)
            return grads, norm, norm
        parts: list[Any] = [weight.grad for weight in adaptive]
        scaled = dict(zip(adaptive, scaled_by_weights(adaptive, parts), strict=True))
        directions: list[Any] = [scaled.get(weight, weight.grad) for weight in weights]
        norm = global_norm(directions)
        torch._foreach_mul_(list(scaled.values()), adaptive)
        return directions, norm, norm

    @torch.no_grad()
    def climb(self, step_size: float = 1.0) -> Tensor:
        """Take one more step of projected gradient ascent, from w + eps and the gradients in `.grad` there.

        eps <- P(eps + step_size * rho * g / ||g||_2), P being the projection onto ||eps||_2 <= rho. The paper
        (appendix C.5, Table 11) does not give its step size. Parameters that perturb() left alone stay there.

        Args:
            step_size: Length of the step in units of rho; > 0.

        Returns:
            ||g||_2 over the perturbed parameters, 0-dimensional; where it is 0 or not finite eps stays.

        Raises:
            RuntimeError: If the weights are not perturbed, or none of them has a gradient.
            ValueError: If the ball is not the plain one of p = 2, or rho differs by group.
        """
        if not self.follows_gradient:
            raise ValueError("climb() needs p=2, adaptive=False and random_direction=False")
        rhos = sorted({group["rho"] for group in self.param_groups})
        if len(rhos) > 1:
            raise ValueError(f"climb() needs one rho for all parameter groups, got {rhos}; make them equal")
        perturbed = self._perturbed_weights()
        weights = [weight for weight in perturbed if weight.grad is not None]
        if not weights:
            raise RuntimeError("no parameter has a gradient; call backward() before climb()")
        grads: Any = [weight.grad for weight in weights]
        norm = global_norm(grads)
        move_(weights, grads, step_size * rhos[0], norm)
        project_(perturbed, [self._saved[weight] for weight in perturbed], rhos[0])
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

        After one step along the gradient (see follows_gradient) that is the cosine between the gradients of
        the two passes, without a copy of the first. With eps stretched to the length of g,
        cos = ||eps + g||^2 / (2 ||g||^2) - 1: worked out in the place of the weights, just before these are
        copied back.

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
            raise RuntimeError("the weights are not perturbed; call first_step() or perturb() first")
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
