"""The rules: which passes are made over one micro-batch, and what gradient they leave behind.

A rule adds its gradient to `.grad`, weighted by the micro-batch's share of the update, and returns sums of
what it saw, as one float64 tensor that stays on the device.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from sam.optim import SAM
from sam.training.precision import Precision
from sam.training.random_state import RandomState
from sam.training.running_statistics import RunningStatistics

PASS_SUMS = ("loss", "errors", "top5_errors")


class Rule(Protocol):
    """What the update needs to know of a rule."""

    optimizer: torch.optim.Optimizer  # its state is saved
    base_optimizer: torch.optim.Optimizer  # takes the step
    sums: tuple[str, ...]  # names of what accumulate() returns
    num_passes: int  # forward-backward passes over each image

    def accumulate(self, images: Tensor, targets: Tensor, share: float, sync: bool) -> Tensor:
        """Add the gradient of one micro-batch to `.grad`.

        Args:
            images: float [m, C, H, W].
            targets: int64 [m].
            share: Weight of this micro-batch in the update; those of all add up to 1.
            sync: Whether this is the last micro-batch, after which processes exchange gradients.

        Returns:
            float64 [len(sums)], on the device.
        """


class ForwardBackward:
    """One pass over some images, as both rules make it.

    Args:
        model: Maps images to logits, perhaps wrapped in DistributedDataParallel.
        precision: Autocast and loss scale.
        label_smoothing: 0 <= label_smoothing < 1.
        statistics: Told after every clean forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: Precision,
        statistics: RunningStatistics,
        label_smoothing: float = 0.0,
    ) -> None:
        self.model = model
        self.precision = precision
        self.statistics = statistics
        self._label_smoothing = label_smoothing

    @property
    def is_distributed(self) -> bool:
        """Whether processes exchange gradients."""
        return isinstance(self.model, DistributedDataParallel)

    def __call__(
        self, images: Tensor, targets: Tensor, *, share: float | Tensor, sync: bool, clean: bool
    ) -> Tensor:
        """Add share * gradient (times the loss scale) to `.grad`; return sums over the images, PASS_SUMS."""
        alone = self.is_distributed and not sync
        if clean:
            self.statistics.begin_micro_batch()
        with self.model.no_sync() if alone else nullcontext():  # type: ignore[operator]
            with self.precision.autocast():
                logits = self.model(images)
            logits = at_least_float32(logits)
            loss = functional.cross_entropy(logits, targets, label_smoothing=self._label_smoothing)
            if clean:
                self.statistics.keep()
            self.precision.scaler.scale(loss * share).backward()
        errors, top5_errors = count_errors(logits.detach(), targets)
        return torch.stack([loss.detach().double() * len(targets), errors, top5_errors])


def at_least_float32(logits: Tensor) -> Tensor:
    """Return logits in which a softmax is safe: half precision becomes float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def count_errors(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many targets are not the first, and not among the first five, as float64 scalars.

    Args:
        logits: [N, K].
        targets: int64 [N].
    """
    best = logits.topk(min(5, logits.shape[1])).indices == targets[:, None]
    num_images = len(targets)
    return num_images - best[:, 0].sum().double(), num_images - best.sum().double()


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

    def accumulate(self, images: Tensor, targets: Tensor, share: float, sync: bool) -> Tensor:
        """Add the gradient at w; see Rule."""
        return self._pass(images, targets, share=share, sync=sync, clean=True)


class SAMRule:
    """Two passes over the same images: m-SAM of Foret et al. (2021), section 4.1, m being their number.

    The gradient of the first pass belongs to this micro-batch and this process alone; only that of the
    second is added up and exchanged. So what is already in `.grad` is put aside during the first pass.

    Args:
        forward_backward: How a pass is made.
        sam: Holds the geometry and the base optimizer, which takes the step.
        true_gradient: Called with True before the first pass and with False after it, for layers that can
            choose (Shake-Shake, ShakeDrop); None leaves them alone.
        replay: Let the second pass see the same random draws as the first.
    """

    sums: tuple[str, ...] = (
        *PASS_SUMS,
        "perturbed_loss",
        "perturbed_errors",
        "grad_norm",
        "num_perturbed",
        "cosine",
        "num_cosines",
    )
    num_passes = 2

    def __init__(
        self,
        forward_backward: ForwardBackward,
        sam: SAM,
        true_gradient: Callable[[bool], None] | None = None,
        replay: bool = True,
    ) -> None:
        self.optimizer: torch.optim.Optimizer = sam
        self._sam = sam
        self.base_optimizer = sam.base_optimizer
        self._pass = forward_backward
        self._true_gradient = true_gradient or (lambda _: None)
        self._replay = replay
        self._parameters = [weight for group in sam.param_groups for weight in group["params"]]
        # The cosine needs this process's gradient of the second pass by itself, without a loss scale.
        self._can_compare = not (
            forward_backward.precision.scales_loss
            or forward_backward.is_distributed
            or any(group["adaptive"] for group in sam.param_groups)
        )

    def accumulate(self, images: Tensor, targets: Tensor, share: float, sync: bool) -> Tensor:
        """Add the gradient at w + eps; see Rule."""
        draws = RandomState(images.device) if self._replay else None
        with self._gradients_put_aside():
            self._true_gradient(True)
            clean = self._pass(images, targets, share=1.0, sync=False, clean=True)
            self._true_gradient(False)
            norm = self._sam.perturb()
        if draws is not None:
            draws.restore()
        try:
            perturbed = self._pass(images, targets, share=self._spoiled(share, norm), sync=sync, clean=False)
        except BaseException:
            self._sam.restore()
            raise
        if self._can_compare and share == 1:
            cosine = self._sam.restore_and_compare().double()
        else:
            self._sam.restore()
            cosine = torch.full_like(norm, torch.nan, dtype=torch.float64)
        norm = self._pass.precision.unscaled(norm).double()
        pairs = (
            torch.stack([value.nan_to_num(0, 0, 0), value.isfinite().double()]) for value in (norm, cosine)
        )
        return torch.cat([clean, perturbed[:2], *pairs])

    def _spoiled(self, share: float, norm: Tensor) -> float | Tensor:
        """Return the share, or nan if the first pass overflowed in fp16.

        The gradients of the update, in every process, are then nan too, and the loss scaler skips it.
        """
        return share * (1 + norm * 0) if self._pass.precision.scales_loss else share

    @contextmanager
    def _gradients_put_aside(self) -> Iterator[None]:
        aside = [weight.grad for weight in self._parameters]
        for weight in self._parameters:
            weight.grad = None
        yield
        for weight, grad in zip(self._parameters, aside, strict=True):
            weight.grad = grad
