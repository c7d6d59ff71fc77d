"""Stable SAM: SAM's gradient, scaled to the length of the plain gradient (arXiv 2401.07250)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sam.optim.memory import local_parts, scale_
from sam.optim.perturbation import global_norm
from sam.optim.sam import SAM


class StableSAM(SAM):
    """SAM whose update has the direction of SAM's gradient and the length of the plain gradient.

    Let g be the gradient at w, and h the gradient at w + eps. The base optimizer gets h * ||g||_2 / ||h||_2.
    Both norms are over all parameters, perturbed or not. The scaling is a part of restore(), so it comes
    before any clipping. If g or h is not finite, or h is zero, h is left as it is. A loss scale has no
    effect. arXiv 2401.07250; the authors' code was not read.

    If the gradients of an update are accumulated over micro-batches, ||g|| and ||h|| are those of the whole
    update.

    Args:
        params: As in SAM.
        base_optimizer: As in SAM.
        rho: As in SAM.
        adaptive: As in SAM; ||g||_2 is then still that of the gradient itself.
        p: As in SAM.
        random_direction: As in SAM.
        **base_arguments: As in SAM.
    """

    _length: Tensor | None = None  # ||g||_2, between the two passes

    @torch.no_grad()
    def perturb(self) -> Tensor:
        """Keep ||g||_2, and move to w + eps; see SAM.

        Returns:
            As in SAM.

        Raises:
            TypeError: If a gradient is sparse; and as in SAM.
        """
        self._check_not_perturbed()
        grads = self._grads()
        self._length = global_norm(grads) if grads else None  # without gradients, SAM raises its error
        return super().perturb()

    @torch.no_grad()
    def restore(self) -> None:
        """Return to w, and scale the gradients in `.grad` to the length of those at w.

        Raises:
            RuntimeError: If the weights are not perturbed.
            TypeError: If a gradient is sparse.
        """
        super().restore()
        grads = self._grads()
        if grads and self._length is not None:
            stretch_(grads, self._length)

    def _grads(self) -> list[Tensor]:
        grads = [weight.grad for weight in self._weights() if weight.grad is not None]
        if any(grad.layout != torch.strided for grad in grads):
            raise TypeError("StableSAM needs the norm of dense gradients, got a sparse one; use SAM")
        return [torch.view_as_real(grad) if grad.is_complex() else grad for grad in grads]

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "length": self._length if self.is_perturbed else None}

    def _load_own_state(self, own: dict[str, Any]) -> None:
        super()._load_own_state(own)
        length = own.get("length")
        self._length = None if length is None else length.to(self._weights()[0].device, copy=True)


def stretch_(grads: Sequence[Tensor], length: Tensor) -> None:
    """Scale gradients in place to a joint 2-norm; leave them if they are zero, or if a norm is not finite.

    Args:
        grads: At least one gradient.
        length: 0-dimensional.
    """
    norm = global_norm(grads)
    is_usable = torch.isfinite(length) & torch.isfinite(norm) & (norm > 0)
    scale_(local_parts(grads), torch.where(is_usable, length / norm, 1))
