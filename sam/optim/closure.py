"""What a closure does to the gradients that are in `.grad` when it is called; no value of them is read."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from sam.optim.memory import any_sharded


def first_pass(
    closure: Callable[[], Any], weights: Sequence[Tensor], both_passes_done: bool
) -> tuple[Any, bool]:
    """Call a closure at w; return its value, and whether it made the first pass.

    Args:
        closure: Makes a pass. If both passes are done, it may also do nothing, like that of Lightning. (If it
            does make gradients then, the update of before was skipped, and the next one begins.)
        weights: All weights of the optimizer.
        both_passes_done: `.grad` holds the gradient of an update whose step has not been made.

    Raises:
        RuntimeError: If there are gradients from before, and the closure does not clear them. `.grad` is then
            as before.
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
    """One call of a closure, and whether it made gradients and cleared those that were there before.

    A hook sees the first gradient that arrives at each weight. If the old gradient is still there then, it is
    put aside, so that nothing is added to it. A version counter shows whether it was set to zero in place.

    Args:
        weights: The weights whose gradients are watched.

    Attributes:
        makes_gradients: Whether a gradient arrived.
        keeps_gradients: Whether a gradient of before was not cleared.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.makes_gradients = False
        self.keeps_gradients = False
        self._weights = weights
        self._before = {w: (w.grad, w.grad._version) for w in weights if w.grad is not None}

    def __call__(self, closure: Callable[[], Any]) -> Any:
        """Return the value of the closure; if it fails, put the gradients of before back."""
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
        """Undo the call: only the gradients of before are left, without those that the closure changed."""
        for weight in self._weights:
            grad, version = self._before.get(weight, (None, 0))
            weight.grad = grad if grad is None or grad._version == version else None

    def _watch(self, weight: Tensor) -> Any:
        # fully_shard adds gradients to a shard by itself, and calls only the hooks for afterwards.
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
        # The version of a sharded gradient does not show what is done to its shard.
        return weight.grad is grad and (any_sharded([weight]) or grad._version == version)
