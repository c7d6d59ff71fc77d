"""LE-SAM: the length of eps from a given rise of the loss (ICML 2026, arXiv 2605.10183)."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sam.optim.groups import check_number
from sam.optim.sam import SAM


class LESAM(SAM):
    """SAM whose eps raises the linearised loss by sigma: <g, eps> = sigma, but ||eps||_2 <= rho.

    eps = min(sigma / ||g||_2, rho) * g / ||g||_2.  ICML 2026, arXiv 2605.10183. For adaptive groups, T g
    takes the place of g in both norms, and T^2 g that of g outside them, with T = |w| (ASAM).

    g is what `.grad` contains in first_step(). So `.grad` must not contain a loss scale, and must be the mean
    over accumulated micro-batches, not their sum. If the base optimizer minimizes a sum of losses, sigma
    belongs to that sum.

    Departs from the authors' code in the cap. They use 999, so eps grows almost without bound as the gradient
    becomes small.

    Args:
        params: As in SAM.
        base_optimizer: As in SAM.
        rho: The cap: the largest length of eps, rho_max of the paper; finite and >= 0, and the same in all
            groups.
        sigma: The rise of the loss, in units of the loss; finite and >= 0. It may be changed between updates:
            assign to the attribute `sigma`. sam.optim.schedule.rise_and_fall() is the authors' schedule.
        adaptive: As in SAM.
        **base_arguments: As in SAM.

    Raises:
        TypeError: If sigma is not a number; and as in SAM.
        ValueError: If sigma is out of range; and as in SAM. perturb() also refuses groups with different rho.
    """

    _can_climb = False

    def __init__(
        self,
        params: Any,
        base_optimizer: type[Optimizer] | Optimizer,
        rho: float = 1.0,
        sigma: float = 0.35,
        adaptive: bool = False,
        **base_arguments: Any,
    ) -> None:
        self._own: dict[str, float] = {}  # one object: wrappers such as Lightning's copy the attributes
        self.sigma = sigma
        super().__init__(
            params, base_optimizer, rho, adaptive, p=2.0, random_direction=False, **base_arguments
        )

    @property
    def sigma(self) -> float:
        """The rise of the loss."""
        return self._own["sigma"]

    @sigma.setter
    def sigma(self, sigma: float) -> None:
        check_number("sigma", sigma)
        if not 0 <= sigma < float("inf"):
            raise ValueError(f"sigma must be finite and >= 0, got {sigma}")
        self._own["sigma"] = sigma

    def _find_directions(
        self, weights: list[Tensor], grads: list[Tensor], adaptive: set[Tensor]
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        rhos = sorted({group["rho"] for group in self._perturbed_groups()})
        if len(rhos) > 1:
            raise ValueError(f"LESAM needs one rho for all parameter groups, got {rhos}; make them equal")
        directions, length, norm = super()._find_directions(weights, grads, adaptive)
        # perturb() moves by rho * direction / length. If sigma is 0, this length is infinite: no move.
        rho_per_sigma = rhos[0] / self.sigma if self.sigma else float("inf")
        return directions, torch.maximum(length, rho_per_sigma * length * length), norm

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "sigma": self.sigma}

    def _load_own_state(self, own: dict[str, Any]) -> None:
        super()._load_own_state(own)
        self.sigma = own.get("sigma", self.sigma)
