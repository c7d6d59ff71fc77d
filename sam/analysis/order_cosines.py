"""Compare the update of SAM with the update that keeps the dropped term (Foret et al. 2021, Figure 5)."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sam.optim.perturbation import global_norm
from sam.training.random_state import RandomState
from sam.training.update import Update


def order_cosines(
    updates: tuple[Update, Update], weights: Sequence[Tensor], batches: Iterable[tuple[Tensor, Tensor]]
) -> list[float]:
    """Return the cosine between the gradients of two updates on the same batches, one for each batch.

    cos = g1 . g2 / (||g1||_2 ||g2||_2), over all weights together, before clipping and momentum. Both updates
    use the same random draws. The weights do not change; running statistics and `.grad` do.

    Args:
        updates: An update with SAM's gradient (Eq. 3), and one with the exact gradient of L(w + eps(w))
            (appendix C.4).
        weights: The weights of the network that both updates share.
        batches: Images, float [B, C, H, W], and targets.
    """
    cosines = []
    for images, targets in batches:
        draws = RandomState(images.device)
        grads = []
        for update in updates:
            draws.restore()
            update.gradient(images, targets)
            grads.append([_grad_of(weight).double() for weight in weights])
        product = sum((a * b).sum() for a, b in zip(*grads, strict=True))
        cosines.append(float(product / (global_norm(grads[0]) * global_norm(grads[1]))))
    return cosines


def _grad_of(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad
