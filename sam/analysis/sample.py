"""The loss of a network over a fixed sample of images: the function that the analyses measure."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


class SampleLoss:
    """Mean cross entropy over a sample, without label smoothing and L2, as a function of the weights.

    The images are processed in chunks of fixed size and order, so the chunk size bounds the memory. Every
    call computes the same function: layers that draw (dropout, gates) are in evaluation mode.

    Args:
        network: Maps images to logits. An analysis may change its weights, so pass a copy.
        images: float [N, C, H, W], normalised, on the network's device and in its dtype.
        targets: int64 [N].
        chunk_size: Images per pass.
        batch_statistics: Let batch norm use the statistics of each chunk instead of the running statistics,
            as in training with micro-batches of chunk_size images.

    Raises:
        ValueError: If there is no image, or chunk_size is below 1.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        targets: Tensor,
        chunk_size: int,
        batch_statistics: bool = False,
    ) -> None:
        if not len(images) or chunk_size < 1:
            raise ValueError(f"{len(images)} images in chunks of {chunk_size}: both must be at least 1")
        self.network = network.eval()
        if batch_statistics:
            for layer in network.modules():
                if isinstance(layer, _BatchNorm):
                    layer.train()
                    layer.track_running_stats = False  # otherwise every pass would change them
        self.images = images
        self.targets = targets
        self.chunk_size = chunk_size
        self.batch_statistics = batch_statistics
        self.weights: list[Tensor] = [weight for weight in network.parameters() if weight.requires_grad]

    def __len__(self) -> int:
        return len(self.targets)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the chunks as (images, targets); the last chunk may be smaller."""
        yield from zip(self.images.split(self.chunk_size), self.targets.split(self.chunk_size), strict=True)

    def chunk_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return a chunk's share of the mean loss, 0-dimensional; all shares sum to the mean loss."""
        return functional.cross_entropy(self.network(images), targets, reduction="sum") / len(self)

    def measure(self) -> tuple[float, float]:
        """Return loss and top-1 error in percent at the current weights."""
        with torch.no_grad():
            return self._means(_sums(self.network(images), targets) for images, targets in self.chunks())

    def measure_with_gradient(self) -> tuple[float, float, list[Tensor]]:
        """Return loss, top-1 error in percent and gradient, from one pass forward and backward."""
        total = [torch.zeros_like(weight) for weight in self.weights]
        sums = []
        for images, targets in self.chunks():
            logits = self.network(images)
            loss = functional.cross_entropy(logits, targets, reduction="sum") / len(self)
            torch._foreach_add_(total, torch.autograd.grad(loss, self.weights))
            sums.append(_sums(logits.detach(), targets))
        return *self._means(sums), total

    def _means(self, sums: Iterable[Tensor]) -> tuple[float, float]:
        loss, errors = sum(
            sums, start=torch.zeros(2, dtype=torch.float64, device=self.images.device)
        ).tolist()
        return loss / len(self), 100 * errors / len(self)


def _sums(logits: Tensor, targets: Tensor) -> Tensor:
    """Return cross entropy and number of errors of a chunk, float64 [2].

    In float32, the loss of a well-fitted image would be a multiple of 6e-8, and often 0.
    """
    loss = functional.cross_entropy(logits.double(), targets, reduction="sum")
    return torch.stack([loss, (logits.argmax(1) != targets).sum().double()])
