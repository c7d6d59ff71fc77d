"""One forward-backward pass over some images, and its sums."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sam.optim.running_statistics import RunningStatistics
from sam.training.precision import Precision

# Sums over the images of clean passes. image_passes counts each image once per pass of any kind.
PASS_SUMS = ("loss", "errors", "top5_errors", "clean_errors", "num_clean", "num_images", "image_passes")


class ForwardBackward:
    """One forward-backward pass over some images, the same for all rules.

    Weight decay in the loss follows the released code of the SAM paper: 0.5 * weight_decay * sum(w^2) over
    all parameters, biases and batch norm included, at the weights of the pass. So it changes the direction of
    eps, and in the second pass it acts at w + eps. Reported losses do not include it.

    Args:
        model: Maps images to logits.
        precision: The autocast and the loss scale.
        statistics: The running statistics; updated by every clean forward pass.
        label_smoothing: 0 <= label_smoothing < 1.
        weight_decay_in_loss: >= 0; with 0, weight decay is left to the optimizer.
        unsynced: Returns a context in which processes do not exchange gradients (no_sync() of
            DistributedDataParallel). None if there is no such context: with one process, which exchanges
            nothing, or with sharded weights, whose gradients are exchanged in every backward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: Precision,
        statistics: RunningStatistics,
        label_smoothing: float = 0.0,
        weight_decay_in_loss: float = 0.0,
        unsynced: Callable[[], AbstractContextManager[object]] | None = None,
    ) -> None:
        self.model = model
        self.precision = precision
        self.statistics = statistics
        self.weight_decay_in_loss = weight_decay_in_loss
        self._label_smoothing = label_smoothing
        self._unsynced = unsynced
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]

    @property
    def is_distributed(self) -> bool:
        """Whether processes exchange gradients in some backward passes only, as chosen by sync."""
        return self._unsynced is not None

    def __call__(
        self,
        images: Tensor,
        targets: Tensor,
        clean_targets: Tensor | None = None,
        *,
        share: float | Tensor,
        sync: bool,
        clean: bool,
        with_decay: bool = True,
    ) -> Tensor:
        """Add share * gradient (times the loss scale) to `.grad`; return PASS_SUMS over the images."""
        with self.exchange(sync):
            logits, loss = self.forward(self.model, images, targets, clean=clean)
            self.backward(loss, share, with_decay)
        return pass_sums(logits.detach(), loss.detach(), targets, clean_targets)

    def exchange(self, sync: bool) -> AbstractContextManager[object]:
        """Return the context of a forward and a backward pass, with or without an exchange of gradients."""
        return nullcontext() if sync or self._unsynced is None else self._unsynced()

    def backward(self, loss: Tensor, share: float | Tensor, with_decay: bool = True) -> None:
        """Add share * gradient of a loss (times the loss scale) to `.grad`.

        Args:
            loss: 0-dimensional.
            share: The weight of this gradient in the update.
            with_decay: Whether the loss includes weight_decay_in_loss.
        """
        if with_decay:
            # Before backward(), because at its end the processes exchange all that is in `.grad`.
            self.add_weight_decay(share)
        self.precision.scaler.scale(loss * share).backward()

    def forward(
        self, call: Callable[[Tensor], Tensor], images: Tensor, targets: Tensor, *, clean: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of the images, and their mean cross entropy.

        Args:
            call: The model, or the model called with other weights.
            images: float [m, C, H, W].
            targets: int64 [m] or float [m, K].
            clean: Whether this pass updates the running statistics.
        """
        if clean:
            self.statistics.begin_micro_batch()
        with self.precision.autocast():
            logits = call(images)
        if clean:
            self.statistics.keep()
        logits = at_least_float32(logits)
        return logits, functional.cross_entropy(logits, targets, label_smoothing=self._label_smoothing)

    @torch.no_grad()
    def add_weight_decay(self, share: float | Tensor) -> None:
        """Add share * weight_decay_in_loss * w (times the loss scale) to `.grad`, in place."""
        if not self.weight_decay_in_loss:
            return
        for weight in self._weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        weights: list[Tensor] = [*self._weights]
        grads: list[Any] = [weight.grad for weight in weights]
        if self.precision.scales_loss:
            factor = share * torch.full((), self.weight_decay_in_loss, device=weights[0].device)
            torch._foreach_addcmul_(grads, weights, [self.precision.scaler.scale(factor)] * len(grads))
        else:
            assert not isinstance(share, Tensor), "only a loss scale makes the share a tensor"
            torch._foreach_add_(grads, weights, alpha=share * self.weight_decay_in_loss)


def pass_sums(logits: Tensor, loss: Tensor, targets: Tensor, clean_targets: Tensor | None) -> Tensor:
    """Return PASS_SUMS over some images, float64.

    Args:
        logits: [m, K].
        loss: The mean loss of the images, 0-dimensional.
        targets: int64 [m] or float [m, K].
        clean_targets: The targets without label noise, in the same form; None if there is no label noise.
    """
    errors, top5_errors = count_errors(logits, targets)
    num_images = torch.full_like(errors, len(targets))
    if clean_targets is None:
        clean = [torch.zeros_like(errors)] * 2
    else:
        clean = [count_errors(logits, clean_targets)[0], num_images]
    return torch.stack([loss.double() * len(targets), errors, top5_errors, *clean, num_images, num_images])


def at_least_float32(logits: Tensor) -> Tensor:
    """Return logits with enough precision for a softmax: half precision becomes float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def count_errors(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of top-1 errors and of top-5 errors, as float64 scalars.

    If targets are probabilities, these are expected numbers: N minus the probability of the best class (or
    of the best five), summed over the images.

    Args:
        logits: [N, K].
        targets: int64 [N], or the probability of each class, float [N, K].
    """
    best = logits.topk(min(5, logits.shape[1])).indices
    hits = targets.gather(1, best) if targets.is_floating_point() else best == targets[:, None]
    num_images = len(targets)
    return num_images - hits[:, 0].double().sum(), num_images - hits.double().sum()
