"""Finds out what a closure does to the gradients in `.grad`, without reading their values."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from sam.optim.memory import any_sharded


def first_pass(
    closure: Callable[[], Any], weights: Sequence[Tensor], both_passes_done: bool
) -> tuple[Any, bool]:
    """Call a closure at w; return its value, and whether the call was a first pass.

    Args:
        closure: Computes the loss and calls backward(). If both passes are done, it may also make no
            gradients, as Lightning's closure does; the call is then not a first pass. (If it makes gradients,
            the step of the last update was skipped, and the call is the first pass of the next update.)
        weights: All weights of the optimizer.
        both_passes_done: Whether both passes of an update are done, but not its step: `.grad` then holds the
            gradient for this step.

    Raises:
        RuntimeError: If `.grad` held gradients before the call, and the closure did not clear them. They are
            put back (see WatchedCall.put_back).
    """
    call = WatchedCall(weights)
    value = call(closure)
    if both_passes_done and not call.makes_gradients:
        return value, False
    if call.keeps_gradients:
        call.put_back()
        raise RuntimeError(
            "`.grad` holds gradients from before step(closure), and the closure does not clear them. If they "
            "are left over, call zero_grad() first, or in the closure. If they are the first pass, call "
            "step(closure, first_pass_done=True). To accumulate over micro-batches, let the closure make the "
            "passes over all of them"
        )
    return value, True


class WatchedCall:
    """One call of a closure: whether it makes gradients, and whether it clears the old ones.

    A hook on each weight with an old gradient is called before backward() adds a new one. If the old gradient
    is still in `.grad`, the hook removes it, so that nothing is added to it. A version counter shows whether
    the closure set the old gradient to zero in place.

    Args:
        weights: The weights whose gradients are watched.

    Attributes:
        makes_gradients: Whether the closure made a gradient.
        keeps_gradients: Whether the closure left an old gradient uncleared.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.makes_gradients = False
        self.keeps_gradients = False
        self._weights = weights
        self._before = {w: (w.grad, w.grad._version) for w in weights if w.grad is not None}

    def __call__(self, closure: Callable[[], Any]) -> Any:
        """Return the value of the closure; if it fails, put the old gradients back."""
        hooks = [self._watch(weight) for weight in self._before if weight.requires_grad]
        try:
            value = closure()
        except BaseException:
            self.put_back()
            raise
        finally:
            for hook in hooks:
                hook.remove()
        self.makes_gradients |= any(w.grad is not None for w in self._weights if w not in self._before)
        self.keeps_gradients |= any(map(self._is_kept, self._before))
        return value

    def put_back(self) -> None:
        """Put the old gradients back, except those that the closure changed in place; remove the new ones.

        To the gradient of a sharded weight, fully_shard has already added the new one; it is not subtracted.
        """
        for weight in self._weights:
            grad, version = self._before.get(weight, (None, 0))
            weight.grad = grad if grad is None or grad._version == version else None

    def _watch(self, weight: Tensor) -> Any:
        # fully_shard itself adds the gradients of a shard, and calls only hooks that run after the addition.
        is_sharded = any_sharded([weight])
        register = weight.register_post_accumulate_grad_hook if is_sharded else weight.register_hook
        return register(partial(self._arrive, weight))

    def _arrive(self, weight: Tensor, _: Tensor) -> None:
        self.makes_gradients = True
        if self._is_kept(weight):
            self.keeps_gradients = True
            weight.grad = None

    def _is_kept(self, weight: Tensor) -> bool:
        grad, version = self._before[weight]
        # The version counter of a sharded gradient does not count what fully_shard adds to its shard.
        return weight.grad is grad and (any_sharded([weight]) or grad._version == version)
