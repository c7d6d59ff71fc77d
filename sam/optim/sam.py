"""Sharpness-Aware Minimization as a torch optimizer around another torch optimizer.

Foret et al. (2021), Algorithm 1: compute the gradient at w, move to w + eps, compute the gradient of the
same batch there, return to w, and let the base optimizer step with that second gradient.

In a training loop:

    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    loss(model(images), targets).backward()
    optimizer.first_step()                        # w + eps
    loss(model(images), targets).backward()
    optimizer.second_step()                       # back to w, then the base optimizer's step

The file is longer than 300 lines because of its docstrings: they are the optimizer's reference.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sam.optim.perturbation import (
    cosine_of_move_,
    dual_directions,
    global_norm,
    is_sharded,
    local_part,
    move_,
    project_,
    scaled_by_weights,
)


@dataclasses.dataclass
class _Between:
    """The state between the two passes, in one object: wrappers such as Lightning's copy the attributes."""

    perturbed: list[Tensor] | None = None  # the weights that are at w + eps now
    has_gradient_of_update: bool = False  # the second pass is done, but the base optimizer has not stepped
    num_not_finite: Tensor | None = None


class SAM(Optimizer):
    """SAM with the ball of Eq. 2 or the ball of ASAM, around any torch optimizer.

    The second step copies the weights back from a buffer (one copy of the perturbed parameters, allocated
    once). It does not subtract eps, so SAM with rho = 0 is bit-identical to the base optimizer. The steps do
    not wait for the device. If the gradient of the first pass is zero or not finite, eps is zero.
    Works with every base optimizer whose step() needs no closure, and with all dense real parameters. (Some
    helpers call step() to create the state, for example those of torch.distributed.checkpoint: give them
    `base_optimizer`.)

    The parameter groups are those of the base optimizer; a learning-rate scheduler may use either optimizer.
    A group may have its own `rho` and `adaptive`. A group with `perturbed=False` is left out of eps and of
    its norm. A parameter without a gradient in the first pass is not perturbed; a parameter without a
    gradient in the second pass is not updated. p and random_direction are not part of the saved state.

    Departs from the paper's released code in weight decay. Here the base optimizer adds it at w; there it is
    part of the loss of both passes. To get that behaviour, add weight decay to your loss.

    Args:
        params: Parameters or parameter groups.
        base_optimizer: A torch optimizer class, such as torch.optim.SGD, or an optimizer of the same
            parameters. An optimizer keeps its groups (with any rho or adaptive in them) and its state.
        rho: Radius of the ball, in weight units; finite and >= 0. The paper uses 0.01 to 0.5.
        adaptive: Scale the ball by |w| (ASAM). A good rho is then about ten times larger.
        p: Norm of the ball, 1 < p <= infinity: eps of Eq. 2 has p-norm rho. All but p = 2 need a copy of g.
        random_direction: Use eps = rho * z / ||z||_2, also where the gradient is zero. z is Gaussian, from
            torch's default generator of the weights' device. This is the paper's comparison with random
            perturbations (appendix C.5).
        **base_arguments: Arguments of the base optimizer class, such as lr.

    Raises:
        ValueError: If rho is negative or not finite; if p is out of range; if two of adaptive, p != 2 and
            random_direction are combined; or if params are not the parameters of the given optimizer.
    """

    def __init__(
        self,
        params: Any,
        base_optimizer: type[Optimizer] | Optimizer,
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
        self._saved: dict[Tensor, Tensor] = {}
        self._between = _Between()
        defaults = {"rho": rho, "adaptive": adaptive, "perturbed": True}
        if isinstance(base_optimizer, Optimizer):
            _check_same_parameters(params, base_optimizer, base_arguments)
            super().__init__(base_optimizer.param_groups, defaults)
            base = base_optimizer
        else:
            super().__init__(params, {**defaults, **base_arguments})
            base = base_optimizer(self.param_groups, **base_arguments)
        self._attach(base)

    def _attach(self, base: Optimizer) -> None:
        """Share parameter groups and state with the base optimizer."""
        self.base_optimizer = base
        self.param_groups, self.state = base.param_groups, base.state
        self.defaults = {**base.defaults, **self.defaults}  # schedulers look here for lr and momentum

    def __getstate__(self) -> dict[str, Any]:
        # A scheduler replaces step() on the instance by a wrapper, which cannot be pickled.
        return {name: value for name, value in self.__dict__.items() if name != "step"}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters.

        Args:
            param_group: The parameters under "params", and any settings of its own: rho, adaptive, perturbed,
                and those of the base optimizer.

        Raises:
            ValueError: If the group's rho is negative or not finite, or if adaptive is combined with p != 2
                or random_direction.
        """
        rho = param_group.get("rho", self.defaults["rho"])
        if not 0 <= rho < float("inf"):
            raise ValueError(f"rho must be finite and >= 0, got {rho}")
        if param_group.get("adaptive", self.defaults["adaptive"]) and not self._is_plain:
            raise ValueError(
                f"adaptive=True needs p=2 and random_direction=False, got p={self._p} and "
                f"random_direction={self._random_direction}"
            )
        if not hasattr(self, "base_optimizer"):  # the constructor of torch's Optimizer calls this method
            super().add_param_group(param_group)
            return
        self._complete(param_group)
        self.base_optimizer.add_param_group(param_group)

    def _complete(self, group: dict[str, Any]) -> None:
        for key in ("rho", "adaptive", "perturbed"):
            group.setdefault(key, self.defaults[key])

    @property
    def _is_plain(self) -> bool:
        return self._p == 2 and not self._random_direction

    @property
    def follows_gradient(self) -> bool:
        """Whether eps is a multiple of the gradient: p = 2, not adaptive, no random direction."""
        return self._is_plain and not any(group["adaptive"] for group in self.param_groups)

    @property
    def is_perturbed(self) -> bool:
        """Whether the weights are at w + eps."""
        return self._between.perturbed is not None

    @property
    def num_not_finite(self) -> int:
        """How often eps was zero because the first gradient was not finite; a read waits for the device."""
        return 0 if self._between.num_not_finite is None else int(self._between.num_not_finite)

    @torch.no_grad()
    def perturb(self) -> Tensor:
        """Save the weights and move them to w + eps, computed from the gradients in `.grad`; keep these.

        Returns:
            The 2-norm of g as a 0-dimensional tensor; adaptive groups enter it with |w| g.

        Raises:
            RuntimeError: If the weights are already perturbed, or no parameter has a gradient.
            ValueError: If parameters are sharded over processes, with p != 2 or random_direction.
        """
        if self.is_perturbed:
            raise RuntimeError("the weights are already perturbed; call second_step() or restore() first")
        # Sorted by rho: all weights with the same rho move in one call.
        groups = sorted((group for group in self.param_groups if group["perturbed"]), key=lambda g: g["rho"])
        chosen = [(group, w) for group in groups for w in group["params"] if w.grad is not None]
        weights = [weight for _, weight in chosen]
        if not weights:
            raise RuntimeError("no parameter has a gradient; call backward() before the first step")
        adaptive = [weight for group, weight in chosen if group["adaptive"]]
        directions, length, norm = self._directions(weights, adaptive)
        self._save(weights)
        rhos = [group["rho"] for group, _ in chosen]
        try:
            for rho in sorted(set(rhos)):
                part = slice(rhos.index(rho), rhos.index(rho) + rhos.count(rho))
                move_(weights[part], directions[part], rho, length)
        except BaseException:
            self._give_up()
            raise
        self._count(norm)
        return norm

    def _directions(
        self, weights: list[Tensor], adaptive: list[Tensor]
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return the directions, the divisor that gives them norm 1, and the gradient's norm."""
        grads: list[Any] = [weight.grad for weight in weights]
        if not self._is_plain and any(map(is_sharded, weights)):
            raise ValueError("sharded parameters need p=2 and random_direction=False")
        if self._random_direction:
            noise, norm = [torch.randn_like(grad) for grad in grads], global_norm(grads)
            return noise, global_norm(noise) + 0 * norm, norm
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

    def _count(self, norm: Tensor) -> None:
        if self._between.num_not_finite is None:
            self._between.num_not_finite = torch.zeros((), dtype=torch.int64, device=norm.device)
        self._between.num_not_finite += ~torch.isfinite(norm)

    @torch.no_grad()
    def climb(self, step_size: float = 1.0) -> Tensor:
        """Take one more step of projected gradient ascent from w + eps, with the gradients in `.grad`.

        eps <- P(eps + step_size * rho * g / ||g||_2), where P is the projection onto ||eps||_2 <= rho. The
        paper (appendix C.5, Table 11) does not give its step size. Parameters that perturb() did not move
        are not moved here either.

        Args:
            step_size: Length of the step in units of rho; > 0.

        Returns:
            ||g||_2 over the perturbed parameters, 0-dimensional. If it is 0 or not finite, eps is unchanged.

        Raises:
            RuntimeError: If the weights are not perturbed, or none of them has a gradient.
            ValueError: If p != 2, adaptive or random_direction is used, or rho differs between groups.
        """
        if not self.follows_gradient:
            raise ValueError("climb() needs p=2, adaptive=False and random_direction=False")
        rhos = sorted({group["rho"] for group in self.param_groups if group["perturbed"]})
        if len(rhos) > 1:
            raise ValueError(f"climb() needs one rho for all parameter groups, got {rhos}; make them equal")
        perturbed = self._perturbed_weights()
        weights = [weight for weight in perturbed if weight.grad is not None]
        if not weights:
            raise RuntimeError("no parameter has a gradient; call backward() before climb()")
        grads: Any = [weight.grad for weight in weights]
        norm = global_norm(grads)
        move_(weights, grads, step_size * rhos[0], norm)
        project_(perturbed, self._copies(perturbed), rhos[0])
        return norm

    def _save(self, weights: list[Tensor]) -> None:
        for weight in weights:
            if weight not in self._saved:
                self._saved[weight] = torch.empty_like(local_part(weight))
        torch._foreach_copy_(self._copies(weights), [local_part(weight) for weight in weights])
        self._between.perturbed = weights
        self._between.has_gradient_of_update = False

    def _copies(self, weights: Iterable[Tensor]) -> list[Tensor]:
        """Return the saved copies of the weights; for a sharded weight, the part that this process holds."""
        return [self._saved[weight] for weight in weights]

    def _perturbed_weights(self) -> list[Tensor]:
        if self._between.perturbed is None:
            raise RuntimeError("the weights are not perturbed; call first_step() or perturb() first")
        return self._between.perturbed

    @torch.no_grad()
    def restore(self) -> None:
        """Copy the saved weights back: the weights are at w again.

        Raises:
            RuntimeError: If the weights are not perturbed.
        """
        weights = self._perturbed_weights()
        # DTensors have no foreach copy; their local parts do.
        torch._foreach_copy_([local_part(weight) for weight in weights], self._copies(weights))
        self._between.perturbed = None
        self._between.has_gradient_of_update = True

    @torch.no_grad()
    def restore_and_compare(self) -> Tensor:
        """Restore the weights, and return the cosine between eps and the gradients in `.grad`.

        After one ascent step with follows_gradient, eps points along the first gradient. The result is then
        the cosine between the gradients of the two passes (over the perturbed parameters). It needs no copy
        of the first gradient.

        Returns:
            A 0-dimensional tensor; nan if eps or the gradient is zero.
        """
        weights = self._perturbed_weights()
        grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        try:
            return cosine_of_move_(weights, self._copies(weights), grads)
        finally:
            self.restore()

    @contextmanager
    def perturbed_weights(self) -> Iterator[None]:
        """Move to w + eps for the second pass inside the context, and back to w at its end, also on an error.

        Entering uses the gradients of the first pass and clears them. Afterwards `step()` without a closure
        is the base optimizer's step. So a GradScaler, or any other wrapper, can call `step()`:

            scaler.scale(loss()).backward()          # eps does not depend on the scale
            with optimizer.perturbed_weights():
                scaler.scale(loss()).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        """
        self.first_step()
        try:
            yield
        except BaseException:
            self._give_up()
            raise
        self.restore()

    def _give_up(self) -> None:
        """Restore after a failure, and clear `.grad`: it holds the complete gradient of neither pass."""
        if self.is_perturbed:
            self.restore()
        self.zero_grad()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients.

        Args:
            set_to_none: Remove them. If False, they become zeros, which step(closure) takes for the gradients
                of a first pass.
        """
        super().zero_grad(set_to_none)
        self._between.has_gradient_of_update = False

    @torch.no_grad()
    def first_step(self, zero_grad: bool = True) -> None:
        """Move to w + eps (Eq. 2), computed from the gradients of the first pass.

        Args:
            zero_grad: Clear the gradients, so that the second backward() does not add to them.
        """
        self.perturb()
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad: bool = True) -> None:
        """Return to w and let the base optimizer step with the gradients computed at w + eps (Eq. 3).

        Args:
            zero_grad: Clear the gradients afterwards.
        """
        self.restore()
        self.step()
        if zero_grad:
            self.zero_grad()

    def step(self, closure: Callable[[], float | Tensor] | None = None) -> Any:
        """Make one update with a closure; after perturbed_weights(), make only the base optimizer's step.

        Args:
            closure: Computes the loss, calls backward() and returns the loss. It is called at w, unless the
                gradients of the first pass are already in `.grad`, and then at w + eps. The gradients are
                cleared afterwards.

        Returns:
            The value of the closure's last call.

        Raises:
            ValueError: If there is no closure, and no second pass has been made before.
        """
        if self._between.has_gradient_of_update:
            # Both passes are done. A closure may be given all the same: that of Lightning does nothing.
            self._between.has_gradient_of_update = False
            return self.base_optimizer.step(closure)  # type: ignore[arg-type]
        if closure is None:
            raise ValueError(
                "SAM takes two passes: call step(closure), or first_step() and second_step(), or make the "
                "second pass within perturbed_weights()"
            )
        closure = torch.enable_grad()(closure)
        if all(weight.grad is None for group in self.param_groups for weight in group["params"]):
            self._call(closure)
        self.first_step()
        loss = self._call(closure)
        self.restore()
        self.base_optimizer.step()
        self.zero_grad()
        return loss

    def _call(self, closure: Callable[[], float | Tensor]) -> float | Tensor:
        try:
            return closure()
        except BaseException:
            self._give_up()
            raise

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state, with SAM's own state under "sam".

        The groups hold rho and adaptive. Between the two passes, "sam" includes the saved weights w.
        """
        weights = [weight for group in self.param_groups for weight in group["params"]]
        perturbed = set(self._between.perturbed or ())
        saved = {i: self._saved[weight] for i, weight in enumerate(weights) if weight in perturbed}
        own = {
            "is_perturbed": self.is_perturbed,
            "saved": saved,
            "num_not_finite": self._between.num_not_finite,
        }
        return {**self.base_optimizer.state_dict(), "sam": own}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of state_dict(), either that of a SAM or that of the base optimizer alone."""
        self.base_optimizer.load_state_dict({k: v for k, v in state_dict.items() if k != "sam"})
        self._attach(self.base_optimizer)
        for group in self.param_groups:
            self._complete(group)
        own = state_dict.get("sam", {"is_perturbed": False, "num_not_finite": None})
        self._between.perturbed, self._between.has_gradient_of_update = None, False
        weights = [weight for group in self.param_groups for weight in group["params"]]
        if own["is_perturbed"]:
            self._save([weights[number] for number in own["saved"]])
            for number, saved in own["saved"].items():
                self._saved[weights[number]].copy_(saved)
        count = own["num_not_finite"]
        self._between.num_not_finite = None if count is None else count.to(weights[0].device, copy=True)


def _check_same_parameters(params: Any, base: Optimizer, base_arguments: dict[str, Any]) -> None:
    """Make sure that a given base optimizer has the given parameters and needs no further arguments."""
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
