"""One forward-backward pass over some images, and the sums that are kept of it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sam.optim.running_statistics import RunningStatistics
from sam.training.precision import Precision

# Over the images of clean passes; image_passes counts every image once per pass of any kind.
PASS_SUMS = ("loss", "errors", "top5_errors", "clean_errors", "num_clean", "num_images", "image_passes")


class ForwardBackward:
    """One pass over some images, as all rules make it.

    Weight decay in the loss is that of the released code of the SAM paper: 0.5 * weight_decay * sum(w^2)
    over all parameters, biases and batch norm included, at the weights the pass is made with. So it takes
    part in the direction of eps, and in the second pass pulls on w + eps. Reported losses are without it.

    Args:
        model: Maps images to logits.
        precision: Autocast and loss scale.
        statistics: Told after every clean forward pass.
        label_smoothing: 0 <= label_smoothing < 1.
        weight_decay_in_loss: >= 0; 0 leaves it to the optimizer.
        unsynced: Makes a context in which processes exchange no gradients, where the model's backward pass
            exchanges them (no_sync of DistributedDataParallel); None where it does not.
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
        """Whether several processes exchange gradients in backward passes."""
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
    ) -> Tensor:
        """Add share * gradient (times the loss scale) to `.grad`; return sums over the images, PASS_SUMS."""
        with nullcontext() if sync or self._unsynced is None else self._unsynced():
            logits, loss = self.forward(self.model, images, targets, clean=clean)
            # Before backward, at whose end processes exchange all that is in `.grad`.
            self._add_weight_decay(share)
            self.precision.scaler.scale(loss * share).backward()
        return pass_sums(logits.detach(), loss.detach(), targets, clean_targets)

    def forward(
        self, call: Callable[[Tensor], Tensor], images: Tensor, targets: Tensor, *, clean: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of images, and their mean cross entropy.

        Args:
            call: The model, perhaps with other weights.
            images: float [m, C, H, W].
            targets: int64 [m] or float [m, K].
            clean: Whether running statistics count this pass.
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
    def _add_weight_decay(self, share: float | Tensor) -> None:
        """Add share * weight_decay * w (times the loss scale) to `.grad`, in place."""
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
        loss: Their mean loss.
        targets: int64 [m] or float [m, K].
        clean_targets: As targets, or None.
    """
    errors, top5_errors = count_errors(logits, targets)
    num_images = torch.full_like(errors, len(targets))
    if clean_targets is None:
        clean = [torch.zeros_like(errors)] * 2
    else:
        clean = [count_errors(logits, clean_targets)[0], num_images]
    return torch.stack([loss.double() * len(targets), errors, top5_errors, *clean, num_images, num_images])


def at_least_float32(logits: Tensor) -> Tensor:
    """Return logits in which a softmax is safe: half precision becomes float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def count_errors(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many targets are not the first, and not among the first five, as float64 scalars.

    Of targets that are probabilities, the expected number: N minus their sum over the first, or first five.

    Args:
        logits: [N, K].
        targets: int64 [N], or the probability of each class, float [N, K].
    """
    best = logits.topk(min(5, logits.shape[1])).indices
    hits = targets.gather(1, best) if targets.is_floating_point() else best == targets[:, None]
    num_images = len(targets)
    return num_images - hits[:, 0].double().sum(), num_images - hits.double().sum()
