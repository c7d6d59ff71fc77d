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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim import Optimizer

from sam.optim.closure import first_pass
from sam.optim.groups import (
    SETTINGS,
    ascents,
    check_arguments,
    check_ball,
    check_base,
    check_positive,
    check_same_parameters,
    check_settings,
    check_weights,
    checked_gradients,
    parts_that_move,
)
from sam.optim.memory import Copies, forget_casts, local_parts
from sam.optim.perturbation import cosine_of_move_, find_directions, global_norm, move_, project_
from sam.optim.protocol import OptimizerWrapper


@dataclasses.dataclass
class _Between:
    """The state between the two passes, in one object: wrappers such as Lightning's copy the attributes."""

    perturbed: list[Tensor] | None = None  # the weights that are at w + eps now
    has_gradient_of_update: bool = False  # the second pass is done, but the base optimizer has not stepped
    num_not_finite: Tensor | None = None


class SAM(OptimizerWrapper):
    """SAM with the ball of Eq. 2 or the ball of ASAM, around any torch optimizer.

    The second step copies the weights back from a buffer (one copy of the perturbed parameters, allocated
    once). It does not subtract eps, so SAM with rho = 0 is bit-identical to the base optimizer. The steps do
    not wait for the device. If the gradient of the first pass is zero or not finite, eps is zero.
    Works with every base optimizer whose step() needs no closure and that has no rho of its own, and with all
    dense real parameters, also views. With maximize=True, eps leads to the lowest loss nearby. (Some helpers
    call step() to create the state, for example those of torch.distributed.checkpoint: give them
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
        TypeError: If rho or p is not a number (a tensor is not allowed); if parameters are complex or sparse;
            or if the base optimizer's step() needs a closure.
        ValueError: If rho or p is out of range; if two of adaptive, p != 2 and random_direction are combined;
            if params are not the parameters of the given optimizer; or if the base optimizer has its own rho
            (or another setting or argument with a name that SAM uses).
    """

    _can_climb = True

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
        check_ball(p, random_direction)
        self._p = p
        self._random_direction = random_direction
        self._saved = Copies()
        self._between = _Between()
        # SAM's settings of each group, by its first weight: a state of the base optimizer has none.
        self._known: dict[Tensor | None, dict[str, Any]] = {}
        if isinstance(base_optimizer, Optimizer):
            check_same_parameters(params, base_optimizer, base_arguments)
            base = base_optimizer
        else:
            base = base_optimizer(params, **base_arguments)
        check_base(base)
        if base is not base_optimizer:
            check_arguments(type(base), type(self))
        super().__init__(base, {"rho": rho, "adaptive": adaptive, "perturbed": True})
        for group in self.param_groups:
            self._adopt(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters.

        Args:
            param_group: The parameters under "params", and any settings of its own: rho, adaptive, perturbed,
                and those of the base optimizer.

        Raises:
            TypeError: If the group's rho is not a number, or if perturbed parameters are complex or sparse.
            ValueError: If the group's rho is negative or not finite, or if adaptive is combined with p != 2
                or random_direction.
        """
        self._settings(param_group)
        self.base_optimizer.add_param_group(param_group)
        try:
            self._adopt(param_group)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def _adopt(self, group: dict[str, Any]) -> None:
        """Give a group of the base optimizer the settings that it lacks, and check its weights."""
        group.update(self._settings(group))
        self._remember_settings(group)
        if group["perturbed"]:
            check_weights(group["params"])

    def _remember_settings(self, group: dict[str, Any]) -> None:
        self._known[_first_weight(group)] = {key: group[key] for key in SETTINGS}

    def _settings(self, group: dict[str, Any]) -> dict[str, Any]:
        """Return SAM's settings of a group, after a check: its own, those that it had, or the defaults."""
        known = self.defaults | self._known.get(_first_weight(group), {})
        settings = {key: group.get(key, known[key]) for key in SETTINGS}
        check_settings(settings, self._p, self._random_direction)
        return settings

    def _weights(self) -> list[Tensor]:
        """Return the weights of all groups, perturbed or not."""
        return [weight for group in self.param_groups for weight in group["params"]]

    def _perturbed_groups(self) -> list[dict[str, Any]]:
        """Return the groups that are perturbed; other code may have added groups or changed settings."""
        for group in self.param_groups:
            if group.keys() >= SETTINGS:
                self._settings(group)
                if not torch.compiler.is_compiling():
                    self._remember_settings(group)
            else:
                self._adopt(group)
        groups = [group for group in self.param_groups if group["perturbed"]]
        if not groups:
            raise ValueError(
                "no parameter group has perturbed=True, so SAM has nothing to perturb; set it in one"
            )
        return groups

    @property
    def _is_plain(self) -> bool:
        return self._p == 2 and not self._random_direction

    @property
    def follows_gradient(self) -> bool:
        """Whether eps is a multiple of the gradient: p = 2, not adaptive, no random direction."""
        return self._is_plain and not any(self._settings(group)["adaptive"] for group in self.param_groups)

    @property
    def is_perturbed(self) -> bool:
        """Whether the weights are at w + eps."""
        return self._between.perturbed is not None

    @property
    def num_not_finite(self) -> int:
        """How often eps was zero because g was not finite; reading this number waits for the device."""
        return 0 if self._between.num_not_finite is None else int(self._between.num_not_finite)

    @torch.no_grad()
    def perturb(self) -> Tensor:
        """Save the weights, and move them to w + eps, computed from the gradients in `.grad`.

        The gradients stay in `.grad`.

        Returns:
            The 2-norm of g as a 0-dimensional tensor; for adaptive groups, |w| g takes the place of g.

        Raises:
            RuntimeError: If the weights are already perturbed, if no parameter has a gradient, or if entries
                of a parameter share memory (as after expand()).
            TypeError: If a gradient is sparse, or if the rho of a group is not a number.
            ValueError: If no group is perturbed, if a setting of a group is out of range, or if parameters
                are sharded over processes: with p != 2, with random_direction, or only some of them.
        """
        self._check_not_perturbed()
        self._between.has_gradient_of_update = False
        groups = self._perturbed_groups()
        moves = parts_that_move(groups, is_signed=not self._random_direction)
        weights = [weight for part in moves.values() for weight in part]
        if not weights:
            raise RuntimeError("no parameter has a gradient; call backward() before the first step")
        grads = checked_gradients(weights, self._is_plain)
        adaptive = {weight for group in groups if group["adaptive"] for weight in group["params"]}
        directions, length, norm = self._find_directions(weights, grads, adaptive)
        self._move(moves, directions, length)
        self._count(norm)
        return norm

    def _move(
        self, moves: dict[tuple[float, int], list[Tensor]], directions: list[Tensor], length: Tensor
    ) -> None:
        """Save the weights, and move those of each (rho, sign) by sign * rho * direction / length.

        Args:
            moves: The weights to move, at least one.
            directions: One per weight, in the order of `moves`.
            length: 0-dimensional.
        """
        try:
            self._save([weight for part in moves.values() for weight in part])
            remaining = iter(directions)
            for (rho, sign), part in moves.items():
                move_(part, list(islice(remaining, len(part))), rho, length, sign)
            forget_casts()
        except BaseException:
            self._give_up()
            raise

    def _find_directions(
        self, weights: list[Tensor], grads: list[Tensor], adaptive: set[Tensor]
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return the directions of eps, their norm, and that of g; variants of SAM change this."""
        return find_directions(weights, grads, adaptive, self._p, self._random_direction)

    def _count(self, norm: Tensor) -> None:
        if self._between.num_not_finite is None:
            self._between.num_not_finite = torch.zeros((), dtype=torch.int64, device=norm.device)
        if self._between.num_not_finite.device != norm.device:  # the weights were moved
            self._between.num_not_finite = self._between.num_not_finite.to(norm.device)
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
            ||g||_2 over the perturbed parameters, 0-dimensional. If it is 0 or not finite, eps is unchanged,
            up to rounding.

        Raises:
            RuntimeError: If the weights are not perturbed, or none of them has a gradient.
            TypeError: If step_size is not a number.
            ValueError: If step_size is out of range; if p != 2, adaptive or random_direction is used; if rho
                differs between groups; or if this is a variant of SAM with at most one ascent step.
        """
        check_positive("step_size", step_size)
        if not self._can_climb:
            raise ValueError(f"{type(self).__name__} has at most one ascent step; use SAM for several")
        if not self.follows_gradient:
            raise ValueError("climb() needs p=2, adaptive=False and random_direction=False")
        groups = self._perturbed_groups()
        rhos = sorted({group["rho"] for group in groups})
        if len(rhos) > 1:
            raise ValueError(f"climb() needs one rho for all parameter groups, got {rhos}; make them equal")
        perturbed = self._perturbed_weights()
        moves = parts_that_move(groups, among=set(perturbed))
        weights = [weight for part in moves.values() for weight in part]
        if not weights:
            raise RuntimeError("no parameter has a gradient; call backward() before climb()")
        norm = global_norm(checked_gradients(weights, self._is_plain))
        for (rho, sign), part in moves.items():
            along: list[Any] = [weight.grad for weight in part]
            move_(part, along, step_size * rho, norm, sign)
        project_(perturbed, self._saved.last, rhos[0])
        forget_casts()
        return norm

    def _save(self, weights: list[Tensor]) -> None:
        self._saved.save(weights)
        self._between.perturbed = weights
        self._between.has_gradient_of_update = False

    def _perturbed_weights(self) -> list[Tensor]:
        if self._between.perturbed is None:
            raise RuntimeError("the weights are not perturbed; call first_step() or perturb() first")
        return self._between.perturbed

    def _check_not_perturbed(self) -> None:
        if self.is_perturbed:
            raise RuntimeError("the weights are already perturbed; call second_step() or restore() first")

    @torch.no_grad()
    def restore(self) -> None:
        """Copy the saved weights back: the weights are at w again.

        Raises:
            RuntimeError: If the weights are not perturbed.
        """
        weights = self._perturbed_weights()
        # DTensors have no foreach copy; their local parts do.
        torch._foreach_copy_(list(local_parts(weights)), self._saved.last)
        increment_version(weights)  # the copy counts for the local part of a DTensor only
        forget_casts()
        self._between.perturbed = None
        self._between.has_gradient_of_update = True

    @property
    def perturbed(self) -> list[Tensor] | None:
        """The weights that are at w + eps now; None if all weights are at w.

        Set it if something else than this object has moved them, or if the calls of this object were only
        recorded and never done.
        """
        return self._between.perturbed

    @perturbed.setter
    def perturbed(self, weights: list[Tensor] | None) -> None:
        self._between.perturbed = weights

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
        try:
            return cosine_of_move_(weights, self._saved.last, ascents(weights, self.param_groups))
        finally:
            self.restore()

    @contextmanager
    def perturbed_weights(self) -> Iterator[None]:
        """A context for the second pass: the weights are at w + eps in it, and at w after it.

        The weights also return to w after an error. The context begins with first_step(), which uses the
        gradients of the first pass and clears them. After the context, `step()` without a closure is the base
        optimizer's step. So a GradScaler, or any other wrapper, can call `step()`:

            scaler.scale(loss()).backward()          # eps does not depend on the scale
            with optimizer.perturbed_weights():
                scaler.scale(loss()).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        """
        self._check_not_perturbed()
        has_moved = False
        try:
            self.first_step()
            has_moved = True
            yield
            self.restore()
        except BaseException:
            if has_moved or self.is_perturbed:
                self._give_up()
            raise

    def _give_up(self) -> None:
        """Restore after a failure, and clear `.grad`: its gradients may be incomplete."""
        if self.is_perturbed:
            self.restore()
        self.zero_grad()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients.

        Args:
            set_to_none: Remove them. If False, they become zeros, and step(closure) needs a closure that
                clears the gradients itself.
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

    def step(self, closure: Callable[[], Any] | None = None, *, first_pass_done: bool = False) -> Any:
        """Make one update with a closure; after perturbed_weights(), make only the base optimizer's step.

        The closure may clear the gradients, in any way (of sharded weights, only by setting them to None), or
        leave that to SAM. It is an error if `.grad` holds gradients before the call and the closure does not
        clear them: SAM cannot know whether they are left over, are those of a first pass, or are accumulated
        over micro-batches.

        After perturbed_weights(), a wrapper may pass a closure that makes no gradients, as Lightning does. It
        is called once, the base optimizer steps, and the gradients are not cleared.

        Args:
            closure: Computes the loss, calls backward() and returns the loss. It is called twice, at w and at
                w + eps. The gradients are cleared afterwards.
            first_pass_done: Whether `.grad` holds the gradients of the first pass. The closure is then called
                once, at w + eps.

        Returns:
            The value of the closure's last call.

        Raises:
            ValueError: If there is no closure, and no second pass has been made before.
            RuntimeError: If the weights are already perturbed; or if `.grad` held gradients before the call,
                and the closure did not clear them. The weights and `.grad` are then as before the call. (But
                fully_shard has added the new gradients to the old ones of sharded weights.)
        """
        if closure is None:
            if not self._between.has_gradient_of_update:
                raise ValueError(
                    "SAM takes two passes: call step(closure), or first_step() and second_step(), or make "
                    "the second pass within perturbed_weights()"
                )
            return self._base_step()
        self._check_not_perturbed()
        closure = torch.enable_grad()(closure)
        if not first_pass_done:
            both_passes_done = self._between.has_gradient_of_update
            self._between.has_gradient_of_update = False
            loss, is_first_pass = first_pass(closure, self._weights(), both_passes_done)
            if not is_first_pass:
                self._base_step()
                return loss
        has_moved = False
        try:
            self.first_step()
            has_moved = True
            loss = closure()
            self.restore()
            self._base_step()
        except BaseException:
            if has_moved or self.is_perturbed:
                self._give_up()
            raise
        self.zero_grad()
        return loss

    def _base_step(self) -> Any:
        self._between.has_gradient_of_update = False
        return self.base_optimizer.step()

    def train(self) -> None:
        """Switch a base optimizer with two modes, such as a schedule-free one, to its mode for training."""
        if hasattr(self.base_optimizer, "train"):
            self.base_optimizer.train()

    def eval(self) -> None:
        """Switch a base optimizer with two modes, such as a schedule-free one, to its mode for evaluation.

        Raises:
            RuntimeError: If the weights are perturbed; the switch would change w + eps instead of w.
        """
        self._check_not_perturbed()
        if hasattr(self.base_optimizer, "eval"):
            self.base_optimizer.eval()

    def _by_number(self, of_weights: Mapping[Tensor, Tensor]) -> dict[int, Tensor]:
        """Return the tensors of weights by the number of their weight, for a state_dict()."""
        number = {weight: number for number, weight in enumerate(self._weights())}
        # Other code may have removed a weight from the groups.
        return {number[weight]: tensor for weight, tensor in of_weights.items() if weight in number}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of state_dict(), of a SAM or of the base optimizer alone.

        Settings of SAM that the state lacks stay as they are, group by group.
        """
        for group in self.param_groups:
            self._adopt(group)
        super().load_state_dict(state_dict)

    def _own_state(self) -> dict[str, Any]:
        saved = {}
        if self._between.perturbed is not None:
            saved = self._by_number(dict(zip(self._between.perturbed, self._saved.last, strict=True)))
        return {
            "is_perturbed": self.is_perturbed,
            "saved": saved,
            "num_not_finite": self._between.num_not_finite,
        }

    def _load_own_state(self, own: dict[str, Any]) -> None:
        for group in self.param_groups:
            self._adopt(group)
        self._between.perturbed, self._between.has_gradient_of_update = None, False
        weights = self._weights()
        if own.get("is_perturbed"):
            self._save([weights[number] for number in own["saved"]])
            torch._foreach_copy_(self._saved.last, list(own["saved"].values()))
        count = own.get("num_not_finite")
        self._between.num_not_finite = None if count is None else count.to(weights[0].device, copy=True)


def _first_weight(group: dict[str, Any]) -> Tensor | None:
    weights = group["params"]  # of a group that is not added yet, this may be an iterator or one tensor
    return weights[0] if isinstance(weights, list) and weights else None
