"""The geometry of SAM: from a gradient to the point of highest linearised loss in a ball around the weights.

Foret et al. (2021), Eq. 2 with p = 2:  eps = rho * g / ||g||_2, one norm over all parameters together.
Appendix C.5 prints the squared norm; that is a slip, Eq. 2 and the released code use the plain one.
Departures: at g = 0, and where g is not finite, eps is zero (the released code divides 0 by 0).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.sgd import sgd


def global_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm of all entries of all tensors together.

    Args:
        tensors: At least one, of any shapes; half precision is summed in float32.

    Returns:
        A 0-dimensional tensor on the device of the first one, float64 if that one is, else float32.
    """
    dtype = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    norms = torch._foreach_norm(list(tensors), 2, dtype=dtype)
    joint: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))
    return joint


def scaled_by_weights(weights: Sequence[Tensor], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return w * t, entry by entry, as one copy.

    Of a gradient g, this is T g of ASAM (Kwon et al. 2021, Eq. 6, eps = rho * T^2 g / ||T g||_2 with
    T = |w|) up to signs, which its norm does not see; applied twice it is T^2 g.
    Departs from that paper's code, which adds 0.01 to |w| and leaves biases unscaled.
    """
    return torch._foreach_mul(list(weights), list(tensors))


def move_(weights: Sequence[Tensor], directions: Sequence[Tensor], rho: float, norm: Tensor) -> None:
    """Add rho * direction / norm to the weights in place; leave them alone if norm is 0 or not finite.

    The decision is made on the device, so nothing waits for it. No copy is made: the kernel is that of
    fused SGD going uphill, with the step rho / norm and the "found inf" switch of mixed precision.
    (Multiplying by zero would not do: 0 * nan is nan.)

    Args:
        weights: Parameters, changed in place.
        directions: One per parameter, in its shape; left unchanged.
        rho: Length of the move where the joint norm of the directions is `norm`; >= 0.
        norm: 0-dimensional, float32 or float64. On a GPU the step is rounded to float32.
    """
    usable = torch.isfinite(norm) & (norm > 0)
    step = torch.where(usable, rho / norm, 0)
    sgd(
        list(weights),
        [_laid_out_as(weight, move) for weight, move in zip(weights, directions, strict=True)],
        [None] * len(weights),
        lr=step.float() if step.is_cuda else step,
        found_inf=(~usable).float(),
        maximize=True,
        fused=True,
        weight_decay=0.0,
        momentum=0.0,
        dampening=0.0,
        nesterov=False,
    )


def _laid_out_as(weight: Tensor, direction: Tensor) -> Tensor:
    """Return the direction with the strides of the weight, which the fused kernel takes for granted."""
    if direction.stride() == weight.stride():
        return direction
    return torch.empty_like(weight).copy_(direction)
