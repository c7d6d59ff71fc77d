"""The geometry of SAM: from a gradient to the point of highest linearised loss in a ball around the weights.

Foret et al. (2021), Eq. 2, with 1/p + 1/q = 1:  eps = rho * sign(g) |g|^(q-1) / (||g||_q^q)^(1/p).
For p = 2 that is rho * g / ||g||_2. One norm over all parameters together, so ||eps||_p = rho.
Appendix C.5 prints the squared norm; that is a slip, Eq. 2 and the released code use the plain one.
Departures: at g = 0, and where g is not finite, eps is zero (the released code divides 0 by 0).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.sgd import sgd


def global_norm(tensors: Sequence[Tensor], p: float = 2.0) -> Tensor:
    """Return the p-norm of all entries of all tensors together.

    Args:
        tensors: At least one, of any shapes; half precision is summed in float32.
        p: From 1 to infinity.

    Returns:
        A 0-dimensional tensor on the device of the first one, float64 if that one is, else float32.
    """
    dtype = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    norms = torch._foreach_norm(list(tensors), p, dtype=dtype)
    joint: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]), p)
    return joint


def dual_directions(grads: Sequence[Tensor], p: float) -> tuple[list[Tensor], Tensor]:
    """Return directions d and their p-norm, such that rho * d / ||d||_p is eps of Eq. 2.

    d = sign(g) * (|g| / max |g|)^(q-1), with q - 1 = 1 / (p - 1). Dividing by the largest entry changes
    nothing in eps, and keeps every power between 0 and 1 however large q is.

    Args:
        grads: One per parameter; left unchanged.
        p: 1 < p <= infinity.

    Returns:
        One direction per gradient, in its shape, and a 0-dimensional norm: 0 if all gradients are, and nan
        if one is not finite, so that move_() does not move.
    """
    largest = global_norm(grads, float("inf"))
    directions = [grad.sign() * (grad.abs() / largest).pow_(1 / (p - 1)) for grad in grads]
    # The power is 0 for p = infinity, and nan^0 is 1.
    return directions, global_norm(directions, p) + 0 * largest


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


def project_(weights: Sequence[Tensor], centres: Sequence[Tensor], rho: float) -> None:
    """Bring the weights back into the 2-ball of radius rho around the centres, in place and without a copy.

    w <- c + (w - c) * min(1, rho / ||w - c||_2), one norm over all parameters together.

    Args:
        weights: Changed in place.
        centres: One per weight; left unchanged.
        rho: Radius of the ball; >= 0.
    """
    torch._foreach_sub_(list(weights), list(centres))
    length = global_norm(weights)
    torch._foreach_mul_(list(weights), torch.where(length > rho, rho / length, 1))
    torch._foreach_add_(list(weights), list(centres))


def differentiable_perturbation(grads: Sequence[Tensor], rho: float) -> tuple[list[Tensor], Tensor]:
    """Return eps = rho * g / ||g||_2 as a function of g that autograd can differentiate, and ||g||_2.

    At g = 0, eps and its derivative are zero; where g is not finite, eps is nan.

    Args:
        grads: One per parameter; left unchanged.
        rho: Length of eps; >= 0.
    """
    norm = global_norm(grads)
    # The derivative of rho / 0 would be infinite even where it is not chosen.
    divisor = torch.where(norm > 0, norm, 1)
    factor = torch.where(norm > 0, rho / divisor, 0)
    return [grad * factor for grad in grads], norm


def _laid_out_as(weight: Tensor, direction: Tensor) -> Tensor:
    """Return the direction with the strides of the weight, which the fused kernel takes for granted."""
    if direction.stride() == weight.stride():
        return direction
    return torch.empty_like(weight).copy_(direction)
