"""The gradients of an update at fixed addresses: views of one flat tensor, which a CUDA graph can add to."""

from itertools import accumulate

import torch
from torch import Tensor, nn

ALIGNMENT = 128  # entries: 512 bytes in float32, the alignment of torch's own allocations on GPUs


class FlatGradients:
    """Keeps the gradients of all weights in one flat tensor for each dtype.

    Only weights that got a gradient have a place in it. For the others, `.grad` stays None: the optimizer
    would apply weight decay to a weight whose gradient is zero.

    Args:
        weights: The weights, on one device.
    """

    def __init__(self, weights: list[nn.Parameter]) -> None:
        self._weights = weights
        self._views: dict[Tensor, Tensor] = {}
        self.flat: list[Tensor] = []

    def clear(self) -> None:
        """Set the gradients to zero, or to None where the weight has no place; call before each update."""
        self.attach()
        if self.flat:
            torch._foreach_zero_(self.flat)

    def attach(self) -> None:
        """Let `.grad` of each weight be its place, whatever it was."""
        for weight in self._weights:
            weight.grad = self._views.get(weight)

    def are_in_place(self) -> bool:
        """Return whether all gradients are in their places; False before the first gather()."""
        return bool(self._views) and all(w.grad is self._views.get(w) for w in self._weights)

    @torch.no_grad()
    def gather(self) -> bool:
        """Give every gradient a place, and move it there; call after each update.

        Returns:
            Whether new places have replaced older ones, because a weight had a gradient but no place.
        """
        if self.are_in_place():
            return False
        had_places = bool(self._views)
        weights = [weight for weight in self._weights if weight.grad is not None]
        grads = [weight.grad for weight in weights if weight.grad is not None]
        self.flat, self._views = _places(weights)
        torch._foreach_copy_([self._views[weight] for weight in weights], grads)
        self.attach()
        return had_places


def _places(weights: list[nn.Parameter]) -> tuple[list[Tensor], dict[Tensor, Tensor]]:
    """Return flat tensors, and for each weight a view of one of them, with the strides of a dense weight."""
    flat: list[Tensor] = []
    views: dict[Tensor, Tensor] = {}
    for dtype in dict.fromkeys(weight.dtype for weight in weights):
        some = [weight for weight in weights if weight.dtype == dtype]
        ends = list(accumulate(-(-weight.numel() // ALIGNMENT) * ALIGNMENT for weight in some))
        flat.append(torch.zeros(ends[-1], dtype=dtype, device=some[0].device))
        for weight, start in zip(some, [0, *ends], strict=False):
            views[weight] = flat[-1].as_strided(weight.shape, torch.empty_like(weight).stride(), start)
    return flat, views
