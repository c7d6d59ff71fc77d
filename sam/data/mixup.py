"""Mixup: each image is blended with another image, and so are their labels (Zhang et al. 2018).

x = lam * x_i + (1 - lam) * x_j and y = lam * y_i + (1 - lam) * y_j with lam ~ Beta(alpha, alpha), where j is
given by a random permutation. One lam per batch, as in the authors' code.
Departure: the permutation is within each micro-batch, not the batch. The result then does not depend on the
number of processes.
The released code of the SAM paper has a mixup but never calls it: it uses max(lam, 1 - lam), and image
B - 1 - i as the partner of image i.
"""

import torch
from torch import Tensor


def draw_mixup(generator: torch.Generator, alpha: float, size: int, m: int) -> tuple[float, Tensor]:
    """Draw lam and the partners for one batch.

    Args:
        generator: A CPU generator; all draws come from it.
        alpha: Parameter of the beta distribution, > 0. If small, lam is near 0 or 1; if large, near 1/2.
        size: Number B of images in the batch.
        m: Images per micro-batch, which contains an image's partner; a divisor of B.

    Returns:
        lam in [0, 1], and the partner of each image, int64 [B].
    """
    from scipy.special import betaincinv  # the import takes half a second, and most runs do not use mixup

    # Inverse of the distribution function, since torch's beta distribution accepts no generator.
    uniform = torch.rand((), generator=generator, dtype=torch.float64).item()
    partners = [first + torch.randperm(m, generator=generator) for first in range(0, size, m)]
    return float(betaincinv(alpha, alpha, uniform)), torch.cat(partners)


def mix_images(images: Tensor, lam: float, permutation: Tensor) -> Tensor:
    """Return lam * images + (1 - lam) * images[permutation], in the shape and memory format of images."""
    return images.mul(lam).add_(images[permutation], alpha=1 - lam)


def mix_targets(targets: Tensor, num_classes: int, lam: float, permutation: Tensor) -> Tensor:
    """Return lam * one_hot + (1 - lam) * one_hot[permutation].

    Args:
        targets: Classes 0 .. num_classes - 1, int64 [B].
        num_classes: Number K of classes.
        lam: Weight of an image's own label, in [0, 1].
        permutation: Partner of each image, int64 [B].

    Returns:
        float32 [B, K]; rows sum to one.
    """
    one_hot = torch.nn.functional.one_hot(targets, num_classes).float()
    return mix_images(one_hot, lam, permutation)
