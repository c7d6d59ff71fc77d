"""The rules: which passes are made over one micro-batch, and what gradient they leave behind.

A rule adds its gradient to `.grad`, weighted by the micro-batch's share of the update, and returns sums of
what it saw, as one float64 tensor that stays on the device.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from sam.optim import SAM
from sam.training.forward_backward import PASS_SUMS, ForwardBackward
from sam.training.random_state import RandomState

SAM_SUMS = (
    *PASS_SUMS,
    "perturbed_loss",
    "perturbed_errors",
    "grad_norm",
    "num_perturbed",
    "cosine",
    "num_cosines",
)


class Rule(Protocol):
    """What the update needs to know of a rule."""

    optimizer: torch.optim.Optimizer  # its state is saved
    base_optimizer: torch.optim.Optimizer  # takes the step
    sums: tuple[str, ...]  # names of what accumulate() returns
    num_passes: int  # forward-backward passes over each image

    def accumulate(
        self, images: Tensor, targets: Tensor, share: float, sync: bool, clean_targets: Tensor | None = None
    ) -> Tensor:
        """Add the gradient of one micro-batch to `.grad`.

        Args:
            images: float [m, C, H, W].
            targets: int64 [m], or the probability of each class, float [m, K].
            share: Weight of this micro-batch in the update; those of all add up to 1.
            sync: Whether this is the last micro-batch, after which processes exchange gradients.
            clean_targets: As targets, before they were spoiled; None where they were not.

        Returns:
            float64 [len(sums)], on the device.
        """


class SGDRule:
    """One pass, the plain gradient.

    Args:
        forward_backward: How a pass is made.
        optimizer: Takes the step.
    """

    sums: tuple[str, ...] = PASS_SUMS
    num_passes = 1

    def __init__(self, forward_backward: ForwardBackward, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = self.base_optimizer = optimizer
        self._pass = forward_backward

    def accumulate(
        self, images: Tensor, targets: Tensor, share: float, sync: bool, clean_targets: Tensor | None = None
    ) -> Tensor:
        """Add the gradient at w; see Rule."""
        return self._pass(images, targets, clean_targets, share=share, sync=sync, clean=True)


class SAMRule:
    """Passes over the same images, all but the last uphill: m-SAM of Foret et al. (2021), section 4.1.

    m is the number of images. The first pass is made at w and gives eps (Algorithm 1); with more than one
    ascent step, each further pass moves eps inside the ball (projected gradient ascent, appendix C.5); the
    last, at w + eps, gives the gradient of the update (Eq. 3).

    The gradients uphill belong to this micro-batch and this process alone; only that of the last pass is
    added up and exchanged. So what is already in `.grad` is put aside during the others.

    Args:
        forward_backward: How a pass is made.
        sam: Holds the geometry and the base optimizer, which takes the step.
        true_gradient: Called with True before the ascent passes and with False after them, for layers that
            can choose (Shake-Shake, ShakeDrop); None leaves them alone.
        replay: Let all passes see the same random draws.
        ascent_steps: At least 1.
        ascent_step_size: Length of the steps after the first, in units of rho; > 0.

    Raises:
        ValueError: If ascent_steps or ascent_step_size is out of range.
    """

    sums: tuple[str, ...] = SAM_SUMS

    def __init__(
        self,
        forward_backward: ForwardBackward,
        sam: SAM,
        true_gradient: Callable[[bool], None] | None = None,
        replay: bool = True,
        ascent_steps: int = 1,
        ascent_step_size: float = 1.0,
    ) -> None:
        if ascent_steps < 1:
            raise ValueError(f"ascent_steps must be at least 1, got {ascent_steps}")
        if not 0 < ascent_step_size < math.inf:
            raise ValueError(f"ascent_step_size must be finite and greater than 0, got {ascent_step_size}")
        self.optimizer: torch.optim.Optimizer = sam
        self.base_optimizer = sam.base_optimizer
        self.num_passes = ascent_steps + 1
        self._sam = sam
        self._pass = forward_backward
        self._true_gradient = true_gradient or (lambda _: None)
        self._replay = replay
        self._ascent_steps = ascent_steps
        self._ascent_step_size = ascent_step_size
        self._parameters = [weight for group in sam.param_groups for weight in group["params"]]
        # The cosine needs this process's gradient of the last pass by itself, without a loss scale, and an
        # eps that still points along the gradient of the first.
        self._can_compare = (
            sam.follows_gradient
            and ascent_steps == 1
            and not forward_backward.precision.scales_loss
            and not forward_backward.is_distributed
        )

    def accumulate(
        self, images: Tensor, targets: Tensor, share: float, sync: bool, clean_targets: Tensor | None = None
    ) -> Tensor:
        """Add the gradient at w + eps; see Rule."""
        before = RandomState(images.device)
        try:
            with self._gradients_put_aside():
                clean, norms = self._ascend(images, targets, clean_targets, before)
            after = RandomState(images.device)
            self._replay_from(before)
            spoiled = self._spoiled(share, norms)
            perturbed = self._pass(images, targets, share=spoiled, sync=sync, clean=False)
            # Where eps is random, it was drawn too: the next micro-batch must not draw the same again.
            self._replay_from(after)
        except BaseException:
            if self._sam.is_perturbed:
                self._sam.restore()
            raise
        cosine = None
        if self._can_compare and share == 1:
            cosine = self._sam.restore_and_compare()
        else:
            self._sam.restore()
        return sam_sums(clean, perturbed, self._pass.precision.unscaled(norms[0]), cosine)

    def _ascend(
        self, images: Tensor, targets: Tensor, clean_targets: Tensor | None, before: RandomState
    ) -> tuple[Tensor, list[Tensor]]:
        """Move to w + eps; return the sums of the first pass and the gradient's norm in every ascent pass."""
        self._true_gradient(True)
        clean = self._pass(images, targets, clean_targets, share=1.0, sync=False, clean=True)
        norms = [self._sam.perturb()]
        for _ in range(self._ascent_steps - 1):
            self._sam.zero_grad()
            self._replay_from(before)
            self._pass(images, targets, share=1.0, sync=False, clean=False)
            norms.append(self._sam.climb(self._ascent_step_size))
        self._true_gradient(False)
        return clean, norms

    def _replay_from(self, draws: RandomState) -> None:
        if self._replay:
            draws.restore()

    def _spoiled(self, share: float, norms: list[Tensor]) -> float | Tensor:
        """Return the share, or nan if an ascent pass overflowed in fp16.

        The gradients of the update, in every process, are then nan too, and the loss scaler skips it.
        """
        return share * (1 + sum(norms) * 0) if self._pass.precision.scales_loss else share

    @contextmanager
    def _gradients_put_aside(self) -> Iterator[None]:
        aside = [weight.grad for weight in self._parameters]
        for weight in self._parameters:
            weight.grad = None
        yield
        for weight, grad in zip(self._parameters, aside, strict=True):
            weight.grad = grad


def sam_sums(clean: Tensor, perturbed: Tensor, norm: Tensor, cosine: Tensor | None = None) -> Tensor:
    """Return SAM_SUMS, float64.

    Args:
        clean: PASS_SUMS of the first pass.
        perturbed: PASS_SUMS of the last.
        norm: Of the first pass's gradient; left out of the sums if not finite.
        cosine: Between the gradients of both passes; None where it is not known.
    """
    if cosine is None:
        cosine = torch.full_like(norm, torch.nan)
    pairs = (
        torch.stack([value.nan_to_num(0, 0, 0), value.isfinite().double()])
        for value in (norm.double(), cosine.double())
    )
    return torch.cat([clean, perturbed[:2], *pairs])
