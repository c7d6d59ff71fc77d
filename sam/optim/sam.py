"""Sharpness-Aware Minimization as a torch optimizer around another torch optimizer.

Foret et al. (2021), Algorithm 1: take the gradient at w, move to w + eps, take the gradient of the same
batch there, return to w and let the base optimizer step with that second gradient.

In a training loop:

    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    loss(model(images), targets).backward()
    optimizer.first_step()                        # w + eps
    loss(model(images), targets).backward()
    optimizer.second_step()                       # back to w, then the base optimizer's step

The file is longer than 300 lines for its docstrings: it is what people read before they use it.
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
    """What is known between the passes: one object, since wrappers such as Lightning's copy attributes."""

    perturbed: list[Tensor] | None = None  # weights that stand at w + eps
    has_gradient_of_update: bool = False  # the second pass is made, and the base optimizer has not stepped
    num_not_finite: Tensor | None = None


class SAM(Optimizer):
    """SAM with the ball of Eq. 2, or that of ASAM, around any torch optimizer.

    Weights come back by copy from a buffer (one copy of the perturbed parameters, allocated once) into the
    place where they were, never by subtraction, so rho = 0 is the base optimizer to the bit. Nothing waits
    for the device. Where the gradient of the first pass is zero or not finite, eps is zero. Any base
    optimizer will do whose step() needs no closure, and any dense real parameters. (Helpers that call step()
    to make a state, as those of torch.distributed.checkpoint, are to be given `base_optimizer`.)

    Parameter groups are those of the base optimizer; learning-rate schedulers may attach to either. A group
    may have its own `rho` and `adaptive`, and with `perturbed=False` it is left out of eps and of its norm.
    Parameters without a gradient in the first pass are not perturbed, those without one in the second are
    not updated. p and the kind of direction belong to the one norm: they are no part of the saved state.

    Departs from the released code of the paper in weight decay, which the base optimizer adds at w: there it
    is part of the loss of both passes. Adding it to your loss gives that.

    Args:
        params: Parameters or parameter groups.
        base_optimizer: A torch optimizer class, such as torch.optim.SGD, or an optimizer of the same
            parameters, whose groups (a rho or adaptive in them included) and state are used as they are.
        rho: Radius of the ball, in weight units; finite and >= 0. The paper uses 0.01 to 0.5.
        adaptive: Scale the ball by |w| (ASAM); rho is then about ten times larger.
        p: Norm of the ball, 1 < p <= infinity: eps of Eq. 2 has p-norm rho. Only 2 costs no copy of g.
        random_direction: Move to rho * z / ||z||_2 instead, z Gaussian from torch's default generator of
            the weights' device, also where the gradient is zero: the paper's comparison with random
            perturbations (appendix C.5).
        **base_arguments: For the base optimizer class, such as lr.

    Raises:
        ValueError: If rho is negative or not finite, if p is out of range, if more than one of adaptive, a p
            other than 2, and random_direction is asked for, or if an optimizer comes with other parameters.
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
        self.defaults = {**base.defaults, **self.defaults}  # schedulers ask it what there is to schedule

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "step"}  # a scheduler's wrap

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with its own rho, adaptive, perturbed and base settings if given.

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
        """Whether eps is a multiple of the gradient: p = 2, not random, not adaptive."""
        return self._is_plain and not any(group["adaptive"] for group in self.param_groups)

    @property
    def is_perturbed(self) -> bool:
        """Whether the weights stand at w + eps."""
        return self._between.perturbed is not None

    @property
    def num_not_finite(self) -> int:
        """How often eps was zero since a first gradient was not finite; asking waits for the device."""
        return 0 if self._between.num_not_finite is None else int(self._between.num_not_finite)

    @torch.no_grad()
    def perturb(self) -> Tensor:
        """Save the weights and move them to w + eps, from the gradients in `.grad`, which stay as they are.

        Returns:
            The 2-norm of g, or of |w| g where adaptive; 0-dimensional.

        Raises:
            RuntimeError: If the weights are already perturbed, or no parameter has a gradient.
            ValueError: If parameters are sharded over processes and the ball is not that of p = 2.
        """
        if self.is_perturbed:
            raise RuntimeError("the weights are already perturbed; call second_step() or restore() first")
        # By rho: the weights of groups that share it move in one call.
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
        """Return directions, the length they are divided by to have norm 1, and the gradient's norm."""
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
        """Return what was saved of weights; of sharded ones, the part of this process."""
        return [self._saved[weight] for weight in weights]

    def _perturbed_weights(self) -> list[Tensor]:
        if self._between.perturbed is None:
            raise RuntimeError("the weights are not perturbed; call first_step() or perturb() first")
        return self._between.perturbed

    @torch.no_grad()
    def restore(self) -> None:
        """Copy the weights of before the perturbation back into their places.

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
        """Restore, and return the cosine between eps and the gradients in `.grad`.

        After one step along the gradient (see follows_gradient) that is the cosine between the gradients of
        the two passes (over the perturbed parameters), without a copy of the first.

        Returns:
            0-dimensional; nan where eps or the gradient is zero.
        """
        weights = self._perturbed_weights()
        grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        try:
            return cosine_of_move_(weights, self._copies(weights), grads)
        finally:
            self.restore()

    @contextmanager
    def perturbed_weights(self) -> Iterator[None]:
        """Go to w + eps for the second pass, and back to w whatever happens in it.

        Takes the gradients of the first pass, and clears them. After it, `step()` without a closure is the
        base optimizer's step, so that a GradScaler, or whatever else calls `step()`, can be in between:

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
        """Restore after a failure, and clear `.grad`: what is in it is the gradient of neither pass."""
        if self.is_perturbed:
            self.restore()
        self.zero_grad()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients; zeros, without set_to_none, count in step(closure) as a first pass."""
        super().zero_grad(set_to_none)
        self._between.has_gradient_of_update = False

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
        self.step()
        if zero_grad:
            self.zero_grad()

    def step(self, closure: Callable[[], float | Tensor] | None = None) -> Any:
        """Do both passes of one update; after perturbed_weights(), only its end, the base optimizer's step.

        Args:
            closure: Computes the loss, calls backward and returns the loss. It is called at w + eps; and
                before that at w, unless gradients of the first pass are already there. Afterwards they are
                cleared.

        Returns:
            What the last call of the closure returned.

        Raises:
            ValueError: If there is no closure, and no second pass has been made and restored from.
        """
        if self._between.has_gradient_of_update:
            # Both passes are made. Lightning, for one, calls step() with a closure that does nothing.
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
        """Return the base optimizer's state, whose groups hold rho and adaptive, and what SAM adds, as "sam".

        Between the two passes that includes the weights to return to.
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
        """Load what state_dict() returned, of a SAM or of its base optimizer alone."""
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
    """Make sure that a given base optimizer is one of the given parameters, and complete."""
    if base_arguments:
        named = ", ".join(base_arguments)
        raise ValueError(f"{named}: the base optimizer is there already; set this when you make it")
    given = list(params)
    if any(isinstance(item, dict) for item in given):
        raise ValueError(
            "params must be parameters where the base optimizer is there already, which has the groups; "
            'set rho in its param_groups[i]["rho"]'
        )
    given = [item[1] if isinstance(item, tuple) else item for item in given]
    if set(given) != {weight for group in base.param_groups for weight in group["params"]}:
        raise ValueError("params and the parameters of the base optimizer differ; give both the same")
