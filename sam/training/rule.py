"""The rules: which passes are made over one micro-batch, and which gradient they leave in `.grad`.

A rule adds its gradient to `.grad`, weighted by the micro-batch's share of the update. It returns its sums
(of losses, errors and so on) as one float64 tensor on the device.
"""

import math
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from sam.optim import SAM
from sam.optim.schedule import ALWAYS, Ascents
from sam.training.forward_backward import PASS_SUMS, ForwardBackward
from sam.training.look_sam import OrthogonalReuse
from sam.training.random_state import RandomState
from sam.training.sam_sums import IMAGE_PASSES, SAM_SUMS, sam_sums, unperturbed_sums


class Rule(Protocol):
    """The interface of a rule."""

    optimizer: torch.optim.Optimizer  # its state is saved
    base_optimizer: torch.optim.Optimizer  # takes the step
    sums: tuple[str, ...]  # names of what accumulate() returns

    def begin(self, step: int) -> None:
        """Prepare for an update; called before each update with its number in the run, counted from 0."""

    def kind(self) -> Hashable:
        """Return what distinguishes the work of accumulate() in this update from that in other updates."""

    def accumulate(
        self, images: Tensor, targets: Tensor, share: float, sync: bool, clean_targets: Tensor | None = None
    ) -> Tensor:
        """Add the gradient of one micro-batch to `.grad`.

        Args:
            images: float [m, C, H, W].
            targets: int64 [m], or the probability of each class, float [m, K].
            share: Weight of this micro-batch in the update; the shares of all micro-batches sum to 1.
            sync: Whether this is the last micro-batch, after which processes exchange gradients.
            clean_targets: The targets without label noise, in the same form; None without label noise.

        Returns:
            float64 [len(sums)], on the device.
        """

    def end(self) -> None:
        """Finish an update; called when `.grad` holds the gradient of the whole batch of all processes."""


class SGDRule:
    """One pass with the plain gradient.

    Args:
        forward_backward: Makes a pass.
        optimizer: Makes the step.
    """

    sums: tuple[str, ...] = PASS_SUMS

    def __init__(self, forward_backward: ForwardBackward, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = self.base_optimizer = optimizer
        self._pass = forward_backward

    def begin(self, step: int) -> None:
        """Do nothing: every update is the same."""

    def kind(self) -> Hashable:
        """Return one value: every update is the same."""
        return None

    def accumulate(
        self, images: Tensor, targets: Tensor, share: float, sync: bool, clean_targets: Tensor | None = None
    ) -> Tensor:
        """Add the gradient at w; see Rule."""
        return self._pass(images, targets, clean_targets, share=share, sync=sync, clean=True)

    def end(self) -> None:
        """Do nothing."""


class SAMRule:
    """Ascent passes and one descent pass over the same images: m-SAM of Foret et al. (2021), section 4.1.

    A micro-batch has m images. The first pass is made at w and gives eps (Algorithm 1). With more than one
    ascent step, each further ascent pass moves eps inside the ball (projected gradient ascent, appendix C.5).
    The last pass, at w + eps, gives the gradient of the update (Eq. 3).

    Only the gradients of the last passes are accumulated over the micro-batches, and exchanged between the
    processes. An ascent gradient is that of one micro-batch, in one process (in all, with sync_ascent). So
    the gradients accumulated so far are moved out of `.grad` during the ascent passes.

    Two options reduce the cost. The ascent passes may use a part of the images only (Bahri et al. 2022).
    Updates that `ascents` does not include use the plain gradient, which `reuse` may correct (LookSAM).

    Args:
        forward_backward: Makes a pass.
        sam: Holds rho and the geometry, and the base optimizer that makes the step.
        true_gradient: Called with True before the ascent passes and with False after them, for layers that
            can choose their gradient (Shake-Shake, ShakeDrop). None: not called.
        replay: Use the same random draws in all passes. (If the ascent passes use a part of the images,
            layers that draw for each image, such as dropout, still draw differently.)
        ascent_steps: Number of ascent steps; at least 1.
        ascent_step_size: Length of the steps after the first, in units of rho; > 0.
        ascent_fraction: Share of the images that the ascent passes use, the first ones; 0 < share <= 1. In
            each process it is rounded to whole images, at least one.
        ascents: The updates that perturb.
        reuse: Keeps a part of the gradient in updates that perturb, and adds it in the other updates of
            SAM's phase.
        sync_ascent: Whether processes also exchange the ascent gradients, so that they share eps.

    Raises:
        ValueError: If ascent_steps, ascent_step_size or ascent_fraction is out of range. Also if reuse is
            given, but processes do not share eps or the ascent passes use a part of the images.
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
        ascent_fraction: float = 1.0,
        ascents: Ascents = ALWAYS,
        reuse: OrthogonalReuse | None = None,
        sync_ascent: bool = False,
    ) -> None:
        _check_ascent(ascent_steps, ascent_step_size, ascent_fraction)
        if reuse is not None:
            _check_reuse(ascent_fraction, sync_ascent or not forward_backward.is_distributed)
        self.optimizer: torch.optim.Optimizer = sam
        self.base_optimizer = sam.base_optimizer
        self._sam = sam
        self._pass = forward_backward
        self._true_gradient = true_gradient or (lambda _: None)
        self._replay = replay
        self._ascent_steps = ascent_steps
        self._ascent_step_size = ascent_step_size
        self._ascent_fraction = ascent_fraction
        self._ascents = ascents
        self._reuse = reuse
        self._sync_ascent = sync_ascent
        self._step = 0
        self._parameters = [weight for group in sam.param_groups for weight in group["params"]]
        # For the cosine, `.grad` must hold only the gradient of the last pass, without a loss scale. And eps
        # must point along the gradient of the first pass over the same images.
        self._can_compare = (
            sam.follows_gradient
            and ascent_steps == 1
            and ascent_fraction == 1
            and not forward_backward.precision.scales_loss
            and (sync_ascent or not forward_backward.is_distributed)
        )

    def begin(self, step: int) -> None:
        """Note the number of the update; see Rule."""
        self._step = step
        if self._reuse is not None and self._ascents.includes(step):
            self._reuse.forget()

    def kind(self) -> Hashable:
        """Return whether this update perturbs; see Rule."""
        return self._ascents.includes(self._step)

    def accumulate(
        self, images: Tensor, targets: Tensor, share: float, sync: bool, clean_targets: Tensor | None = None
    ) -> Tensor:
        """Add the gradient at w + eps, or at w if the update does not perturb; see Rule."""
        if not self._ascents.includes(self._step):
            return unperturbed_sums(
                self._pass(images, targets, clean_targets, share=share, sync=sync, clean=True)
            )
        before = RandomState(images.device)
        try:
            with self._without_gradients():
                clean, norms = self._ascend(images, targets, clean_targets, share, before)
            after = RandomState(images.device)
            self._replay_from(before)
            share_or_nan = self._share_or_nan(share, norms)
            perturbed = self._last_pass(images, targets, share_or_nan, sync)
            # perturb() may have drawn a random eps: the next micro-batch must not draw the same numbers.
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

    def end(self) -> None:
        """Keep or reuse a part of the gradient; see Rule."""
        if self._reuse is None or not self._ascents.covers(self._step):
            return
        if self._ascents.includes(self._step):
            self._reuse.remember()
        else:
            self._reuse.add()

    def _ascend(
        self,
        images: Tensor,
        targets: Tensor,
        clean_targets: Tensor | None,
        share: float,
        before: RandomState,
    ) -> tuple[Tensor, list[Tensor]]:
        """Move to w + eps; return the sums of the ascent passes and the norm of each ascent gradient."""
        num_images = max(1, round(self._ascent_fraction * len(targets)))
        images, targets = images[:num_images], targets[:num_images]
        clean_targets = None if clean_targets is None else clean_targets[:num_images]
        sync = self._sync_ascent
        self._true_gradient(True)
        clean = self._first_pass(images, targets, clean_targets)
        norms = [self._perturb(share)]
        for _ in range(self._ascent_steps - 1):
            self._sam.zero_grad()
            self._replay_from(before)
            again = self._pass(images, targets, share=1.0, sync=sync, clean=False)
            clean[IMAGE_PASSES] += again[IMAGE_PASSES]
            norms.append(self._sam.climb(self._ascent_step_size))
        self._true_gradient(False)
        return clean, norms

    def _perturb(self, share: float) -> Tensor:
        """Move to w + eps with the gradient in `.grad`; return its norm."""
        if self._reuse is not None:
            self._reuse.add_clean_gradient(share)
        return self._sam.perturb()

    def _first_pass(self, images: Tensor, targets: Tensor, clean_targets: Tensor | None) -> Tensor:
        """Add the gradient at w to `.grad`; return the sums."""
        return self._pass(images, targets, clean_targets, share=1.0, sync=self._sync_ascent, clean=True)

    def _last_pass(self, images: Tensor, targets: Tensor, share: float | Tensor, sync: bool) -> Tensor:
        """Add share * the gradient of the update, at w + eps, to `.grad`; return the sums."""
        return self._pass(images, targets, share=share, sync=sync, clean=False)

    def _replay_from(self, draws: RandomState) -> None:
        if self._replay:
            draws.restore()

    def _share_or_nan(self, share: float, norms: list[Tensor]) -> float | Tensor:
        """Return the share, or nan if an ascent pass overflowed in fp16.

        With nan, the update's gradient is nan in every process, and the loss scaler skips the update.
        """
        return share * (1 + sum(norms) * 0) if self._pass.precision.scales_loss else share

    @contextmanager
    def _without_gradients(self) -> Iterator[None]:
        aside = [weight.grad for weight in self._parameters]
        for weight in self._parameters:
            weight.grad = None
        yield
        for weight, grad in zip(self._parameters, aside, strict=True):
            weight.grad = grad


def _check_ascent(steps: int, step_size: float, fraction: float) -> None:
    if steps < 1:
        raise ValueError(f"ascent_steps must be at least 1, got {steps}")
    if not 0 < step_size < math.inf:
        raise ValueError(f"ascent_step_size must be finite and greater than 0, got {step_size}")
    if not 0 < fraction <= 1:
        raise ValueError(f"ascent_fraction must be greater than 0 and at most 1, got {fraction}")


def _check_reuse(fraction: float, is_shared: bool) -> None:
    if not is_shared:
        raise ValueError(
            "reuse (LookSAM) with several processes needs sync_ascent=True: the kept gradient must be the "
            "same in all of them"
        )
    if fraction < 1:
        raise ValueError(
            "reuse (LookSAM) compares gradients of the same images; it needs ascent_fraction=1, got "
            f"{fraction}"
        )
