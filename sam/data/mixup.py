"""Mixup: each image is blended with another one of the batch, and so are their labels.

x = lam * x_i + (1 - lam) * x_j and y = lam * y_i + (1 - lam) * y_j, lam ~ Beta(alpha, alpha), where j runs
through a random permutation of the batch (Zhang et al. 2018). One lam per batch, as in the authors' code.
Departure: of the micro-batch, so that it does not matter how many processes share the batch.
The released code of the SAM paper has a mixup that it never calls: it takes max(lam, 1 - lam), and image
B - 1 - i as the partner of image i.
"""

import torch
from torch import Tensor


def draw_mixup(generator: torch.Generator, alpha: float, size: int, m: int) -> tuple[float, Tensor]:
    """Draw what mixes one batch.

    Args:
        generator: On the CPU; the only source of the draws.
        alpha: Of the beta distribution, above 0. Small: most images stay as they are; large: halves.
        size: B, images in the batch.
        m: An image's partner is one of the m images of its micro-batch; a divisor of B.

    Returns:
        lam in [0, 1], and the partner of each image, int64 [B].
    """
    from scipy.special import betaincinv  # takes half a second to load, and most runs do not mix

    # Inverse of the distribution function: torch's own beta draws take no generator.
    uniform = torch.rand((), generator=generator, dtype=torch.float64).item()
    partners = [first + torch.randperm(m, generator=generator) for first in range(0, size, m)]
    return float(betaincinv(alpha, alpha, uniform)), torch.cat(partners)


def mix_images(images: Tensor, lam: float, permutation: Tensor) -> Tensor:
    """Return lam * images + (1 - lam) * images[permutation], in the shape and memory format of images."""
    return images.mul(lam).add_(images[permutation], alpha=1 - lam)


def mix_targets(targets: Tensor, num_classes: int, lam: float, permutation: Tensor) -> Tensor:
    """Return lam * one_hot + (1 - lam) * one_hot[permutation].

    Args:
        targets: int64 [B], each in 0 .. num_classes - 1.
        num_classes: K.
        lam: Weight of an image's own label, in [0, 1].
        permutation: int64 [B], the partner of each image.

    Returns:
        float32 [B, K]; rows sum to one.
    """
    one_hot = torch.nn.functional.one_hot(targets, num_classes).float()
    return mix_images(one_hot, lam, permutation)
