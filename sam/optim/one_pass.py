"""The base class of the variants of SAM that know eps before the pass, so that an update has one pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sam.optim.groups import check_memory
from sam.optim.perturbation import global_norm
from sam.optim.sam import SAM


class OnePassSAM(SAM):
    """SAM along a direction that earlier updates give, so that the gradient at w is not needed.

    In a training loop:

        with optimizer.perturbed_weights():           # at w + eps
            loss(model(images), targets).backward()
        optimizer.step()                              # back at w: the base optimizer's step
        optimizer.zero_grad()

    In the two-step form, first_step() comes before the forward pass and second_step() after backward().
    step(closure) calls the closure once, at w + eps. To accumulate gradients over micro-batches, make the
    passes over all of them in one context, or in one closure. first_step() and the context clear `.grad`.

    The loss of the pass is that at w + eps. Evaluate the model, and save it, between two updates.

    What the forward pass writes into the weights, as nn.Embedding(max_norm=...) does, is lost when they
    return to w. Apply it after the step.

    Args:
        params: As in SAM.
        base_optimizer: As in SAM.
        rho: As in SAM.
        **base_arguments: As in SAM.
    """

    _can_climb = False

    def __init__(
        self, params: Any, base_optimizer: type[Optimizer] | Optimizer, *, rho: float, **base_arguments: Any
    ) -> None:
        super().__init__(params, base_optimizer, rho, p=2.0, random_direction=False, **base_arguments)

    def _direction(self, weight: Tensor) -> Tensor:
        """Return the direction of eps for one weight, up to its sign; zeros before the first step."""
        raise NotImplementedError

    def _sign(self, group: dict[str, Any]) -> int:
        """Return the sign of eps in a group: 1 along the direction, or -1 against it."""
        raise NotImplementedError

    def remember(self) -> None:
        """Keep what the next update needs of the gradients in `.grad`; nothing, unless a subclass does.

        The weights must be at w + eps. perturbed_weights(), second_step() and step(closure) call this. Code
        that calls perturb() and restore() must call it between the pass and restore().
        """

    def _settings(self, group: dict[str, Any]) -> dict[str, Any]:
        settings = super()._settings(group)
        if settings["adaptive"]:
            raise ValueError(f"{type(self).__name__} is not adaptive; set adaptive=False in every group")
        return settings

    @property
    def follows_gradient(self) -> bool:
        """False: eps is not a multiple of the gradient at w."""
        return False

    @torch.no_grad()
    def perturb(self) -> Tensor:
        """Save the weights, and move them to w + eps; call this before the pass.

        Returns:
            The 2-norm of the direction, 0-dimensional. If it is 0 or not finite, the weights do not move.

        Raises:
            RuntimeError: If the weights are already perturbed, if no perturbed parameter requires a gradient,
                or if entries of a parameter share memory.
            ValueError: If no group is perturbed, or if a setting of a group is out of range.
        """
        self._check_not_perturbed()
        self._between.has_gradient_of_update = False
        moves: dict[tuple[float, int], list[Tensor]] = {}
        for group in self._perturbed_groups():
            part = [weight for weight in group["params"] if weight.requires_grad]
            moves.setdefault((group["rho"], self._sign(group)), []).extend(part)
        weights = [weight for part in moves.values() for weight in part]
        if not weights:
            raise RuntimeError("no parameter of a perturbed group requires a gradient")
        check_memory(weights)
        directions = [self._direction(weight) for weight in weights]
        norm = global_norm(directions)
        self._move({key: part for key, part in moves.items() if part}, directions, norm)
        self._count(norm)
        return norm

    @contextmanager
    def perturbed_weights(self) -> Iterator[None]:
        """A context for the pass: the weights are at w + eps in it, and at w after it, also after an error.

        The context begins with first_step(), which clears the gradients. After it, `step()` without a closure
        is the base optimizer's step. So a GradScaler, or any other wrapper, can call `step()`.
        """
        with super().perturbed_weights():
            yield
            self.remember()

    @torch.no_grad()
    def second_step(self, zero_grad: bool = True) -> None:
        """Return to w and let the base optimizer step with the gradients computed at w + eps.

        Args:
            zero_grad: Clear the gradients afterwards.

        Raises:
            RuntimeError: If the weights are not perturbed.
            TypeError: If a gradient is sparse and the variant keeps gradients. The weights are then at w.
        """
        try:
            self.remember()
        except BaseException:
            self._give_up()
            raise
        super().second_step(zero_grad)

    def step(self, closure: Callable[[], Any] | None = None, *, first_pass_done: bool = False) -> Any:
        """Make one update with a closure; after perturbed_weights(), make only the base optimizer's step.

        After perturbed_weights(), a wrapper may pass a closure that makes no gradients, as Lightning does.
        The base optimizer then steps with the gradients of the pass, and they are not cleared.

        Args:
            closure: Computes the loss, calls backward() and returns the loss. It is called once, at w + eps.
                The gradients are cleared before and afterwards.
            first_pass_done: Must be False: there is no pass at w.

        Returns:
            The value of the closure.

        Raises:
            ValueError: If there is no closure and no pass at w + eps has been made, or if first_pass_done.
            RuntimeError: If the weights are already perturbed.
        """
        name = type(self).__name__
        if first_pass_done:
            raise ValueError(f"{name} has one pass, at w + eps; leave out first_pass_done")
        if closure is None:
            if not self._between.has_gradient_of_update:
                raise ValueError(
                    f"{name} computes the gradient at w + eps: call step(closure), or make the pass within "
                    "perturbed_weights()"
                )
            return self._base_step()
        weights = self._weights() if self._between.has_gradient_of_update else []
        of_last_pass = [(weight, weight.grad) for weight in weights]
        with self.perturbed_weights():
            loss = torch.enable_grad()(closure)()
        is_pass = not weights or any(weight.grad is not None for weight in weights)
        if not is_pass:
            for weight, grad in of_last_pass:
                weight.grad = grad
        self._base_step()
        if is_pass:
            self.zero_grad()
        return loss
