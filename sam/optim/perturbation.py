"""The geometry of SAM: from a gradient to the point of highest linearised loss in a ball around the weights.

Foret et al. (2021), Eq. 2, with 1/p + 1/q = 1:  eps = rho * sign(g) |g|^(q-1) / (||g||_q^q)^(1/p).
For p = 2 this is rho * g / ||g||_2. The norm is taken over all parameters together, so ||eps||_p = rho.
Appendix C.5 prints the squared norm. That is a misprint: Eq. 2 and the released code use the plain norm.
Departure: eps is zero where g is zero or not finite (the released code divides 0 by 0).

If weights and gradients are sharded over processes, each process moves its own shards, and norms are taken
over the shards of all processes.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.graph import increment_version
from torch.optim.sgd import sgd

from sam.optim.memory import any_sharded, by_device, dense_pairs, local_parts, on_device, scale_


def global_norm(tensors: Sequence[Tensor], p: float = 2.0) -> Tensor:
    """Return the p-norm of all entries of all tensors together.

    Args:
        tensors: At least one tensor, of any shape. Half precision is summed in float32.
        p: 1 <= p <= infinity.

    Returns:
        A 0-dimensional tensor on the device of the first tensor: float64 if any tensor is, else float32. For
        sharded tensors it is the same in all processes. (On a CPU, torch's float32 sum over ten million
        entries has an error of up to 1e-3, as in clip_grad_norm_. A float64 sum takes 30 times as long.)
    """
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    parts = local_parts(tensors)
    if p == float("inf"):  # torch has no maximum of an empty tensor
        parts = [part for part in parts if part.numel()] or [parts[0].new_zeros(1)]
    norms = list(torch._foreach_norm(list(parts), p, dtype=dtype))
    where = norms[0].device
    if any(norm.device != where for norm in norms):
        norms = [norm.to(where) for norm in norms]
    joint: Tensor = torch.linalg.vector_norm(torch.stack(norms), p)
    return _joined_over_shards(joint, tensors, p)


def _joined_over_shards(norm: Tensor, tensors: Sequence[Tensor], p: float) -> Tensor:
    """Return the norm over the shards of all processes, given the norm over the shards of this process."""
    if not any_sharded(tensors):
        return norm
    first: Any = tensors[0]
    placements = getattr(first, "placements", ())
    if not all(getattr(tensor, "placements", None) == placements for tensor in tensors):
        raise ValueError("either all tensors are sharded, and over the same processes, or none is")
    for axis, placement in enumerate(placements):
        if placement.is_shard():
            group = first.device_mesh.get_group(axis)
            parts = [torch.empty_like(norm) for _ in range(group.size())]
            distributed.all_gather(parts, norm, group=group)
            norm = torch.linalg.vector_norm(torch.stack(parts), p)
    return norm


def dual_directions(grads: Sequence[Tensor], p: float) -> tuple[list[Tensor], Tensor]:
    """Return directions d and their p-norm, such that rho * d / ||d||_p is eps of Eq. 2.

    d = sign(g) * (|g| / max |g|)^(q-1), with q - 1 = 1 / (p - 1). The division by the largest entry does not
    change eps. It keeps every power between 0 and 1, however large q is.

    Args:
        grads: One gradient per parameter; left unchanged.
        p: 1 < p <= infinity.

    Returns:
        One direction per gradient, in the gradient's shape, and a 0-dimensional norm. The norm is nan if all
        gradients are zero or one is not finite; move_() then does not move.
    """
    largest = global_norm(grads, float("inf"))
    directions = [
        grad.sign() * (grad.abs() / on_device(largest, grad.device)).pow_(1 / (p - 1)) for grad in grads
    ]
    # The power is 0 for p = infinity, and nan^0 is 1.
    return directions, global_norm(directions, p) + 0 * largest


def scaled_by_weights(weights: Sequence[Tensor], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return w * t for each entry, as new tensors.

    ASAM (Kwon et al. 2021, Eq. 6) uses eps = rho * T^2 g / ||T g||_2 with T = |w|. For t = g this function
    returns T g up to signs, which do not change the norm; applied twice it returns T^2 g.
    Departs from that paper's code, which adds 0.01 to |w| and does not scale biases.
    """
    return torch._foreach_mul(list(weights), list(tensors))


def find_directions(
    weights: Sequence[Tensor],
    grads: list[Tensor],
    adaptive: Collection[Tensor],
    p: float,
    random_direction: bool,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the directions of eps, the norm by which to divide them, and the 2-norm of the gradient.

    eps = rho * direction / norm. For adaptive weights, T g takes the place of g in both norms (see
    scaled_by_weights).

    Args:
        weights: The weights.
        grads: One gradient per weight; left unchanged.
        adaptive: The weights for which the ball is scaled by |w|; only with p = 2.
        p: Norm of the ball, 1 < p <= infinity.
        random_direction: Draw Gaussian directions; only with p = 2.
    """
    if random_direction:
        noise, norm = [torch.randn_like(grad) for grad in grads], global_norm(grads)
        return noise, global_norm(noise) + 0 * norm, norm
    if p != 2:
        return *dual_directions(grads, p), global_norm(grads)
    if not adaptive:
        norm = global_norm(grads)
        return grads, norm, norm
    chosen = [weight for weight in weights if weight in adaptive]
    parts = [grad for weight, grad in zip(weights, grads, strict=True) if weight in adaptive]
    scaled = scaled_by_weights(chosen, parts)
    remaining = iter(scaled)
    directions = [
        next(remaining) if weight in adaptive else grad for weight, grad in zip(weights, grads, strict=True)
    ]
    norm = global_norm(directions)
    torch._foreach_mul_(list(scaled), chosen)
    return directions, norm, norm


def move_(
    weights: Sequence[Tensor], directions: Sequence[Tensor], rho: float, norm: Tensor, sign: int = 1
) -> None:
    """Add sign * rho * direction / norm to the weights in place; do not move if norm is 0 or not finite.

    The device decides whether to move, so the host does not wait. (It waits if some weights are on a GPU and
    others on the CPU.) No copy is made of dense weights: the kernel of fused SGD is used with lr = rho /
    norm, and the found_inf flag of mixed precision to skip the move. (A multiplication by zero would not skip
    it: 0 * nan is nan.)

    Args:
        weights: Parameters, changed in place; their version counters rise, so autograd notices the change.
            Their entries must not share memory.
        directions: One per parameter, in its shape; left unchanged.
        rho: Length of the move if the joint norm of the directions is `norm`; >= 0.
        norm: 0-dimensional, float32 or float64. On a GPU, rho / norm is rounded to float32.
        sign: 1, or -1 to move against the directions.
    """
    step = rho / norm
    usable = torch.isfinite(norm) & torch.isfinite(step)  # a tiny norm has no finite reciprocal
    step = torch.where(usable, step, 0)
    places, moves = local_parts(weights), local_parts(directions)
    if torch.compiler.is_compiling():  # torch.compile does not trace the fused kernel
        for place, direction in zip(places, moves, strict=True):
            place.add_(torch.where(usable, sign * step * direction, 0))
        return
    for where, (parts, along) in by_device(places, moves):
        _move_on_device(parts, along, on_device(step, where), on_device(usable, where), sign)
    increment_version(weights)  # the kernel does not


def _move_on_device(
    places: Sequence[Tensor], directions: Sequence[Tensor], step: Tensor, usable: Tensor, sign: int
) -> None:
    """Add sign * step * direction to tensors of one device in place, if `usable`."""
    moved, moves = dense_pairs(places, directions)
    sgd(
        list(moved),
        list(moves),
        [None] * len(moved),
        lr=step.float() if step.is_cuda else step,
        found_inf=(~usable).float(),
        maximize=sign > 0,
        fused=True,
        weight_decay=0.0,
        momentum=0.0,
        dampening=0.0,
        nesterov=False,
    )
    if moved is not places:
        for place, copied in zip(places, moved, strict=True):
            if copied is not place:
                place.copy_(copied)


def project_(weights: Sequence[Tensor], centres: Sequence[Tensor], rho: float) -> None:
    """Project the weights onto the 2-ball of radius rho around the centres, in place and without a copy.

    w <- c + (w - c) * min(1, rho / ||w - c||_2), with one norm over all parameters together.

    Args:
        weights: Parameters, changed in place.
        centres: One per weight; for a sharded weight, the part that this process holds. Left unchanged.
        rho: Radius of the ball; >= 0.
    """
    parts = list(local_parts(weights))
    torch._foreach_sub_(parts, list(centres))
    length = global_norm(weights)
    scale_(parts, torch.where(length > rho, rho / length, 1))
    torch._foreach_add_(parts, list(centres))


def cosine_of_move_(weights: Sequence[Tensor], centres: Sequence[Tensor], grads: Sequence[Tensor]) -> Tensor:
    """Return the cosine between w - c and g. The computation overwrites the weights.

    First w - c is scaled to the length of g; then cos = ||w - c + g||^2 / (2 ||g||^2) - 1. (A difference of
    squared norms would lose the cosine of a short move to rounding.)

    Args:
        weights: Overwritten; their values afterwards have no meaning.
        centres: One per weight; for a sharded weight, the part that this process holds. Left unchanged.
        grads: One per weight; left unchanged.

    Returns:
        A 0-dimensional tensor; nan if w - c or g is zero.
    """
    parts = list(local_parts(weights))
    torch._foreach_sub_(parts, list(centres))
    grad_norm = global_norm(grads)
    scale_(parts, grad_norm / global_norm(weights))
    torch._foreach_add_(parts, list(local_parts(grads)))
    return global_norm(weights) ** 2 / (2 * grad_norm**2) - 1


def orthogonal_part(vectors: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """Return v - (v . u / u . u) u, the part of v that is orthogonal to u.

    Args:
        vectors: The tensors that together are the vector v; left unchanged.
        others: The tensors that together are the vector u, in the same shapes. If u is zero, v is returned.
    """
    product, square = (
        torch.stack([(left * right).sum() for left, right in zip(some, others, strict=True)]).sum()
        for some in (vectors, others)
    )
    factor = torch.where(square > 0, product / square, 0)
    projected = torch._foreach_mul(list(others), factor)
    return list(torch._foreach_sub(list(vectors), projected))


def differentiable_perturbation(grads: Sequence[Tensor], rho: float) -> tuple[list[Tensor], Tensor]:
    """Return eps = rho * g / ||g||_2 as a function of g that autograd can differentiate, and ||g||_2.

    If g is zero, eps and its derivative are zero. If g is not finite, eps is nan.

    Args:
        grads: One gradient per parameter; left unchanged.
        rho: Length of eps; >= 0.
    """
    norm = global_norm(grads)
    # torch.where() also differentiates the branch it does not take, and rho / 0 has an infinite derivative.
    divisor = torch.where(norm > 0, norm, 1)
    factor = torch.where(norm > 0, rho / divisor, 0)
    return [grad * factor for grad in grads], norm
