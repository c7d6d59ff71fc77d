"""Shake-Shake and ShakeDrop image by image, forward and backward, by the formulas of their papers.

Nothing of the package is used here. Coefficients are given; images are [N, C, H, W].
"""

import torch


def shake_shake(first, second, alphas):
    """Return alpha * first + (1 - alpha) * second with one alpha per image (Gastaldi 2017, Eq. 2)."""
    mixed = []
    for image1, image2, alpha in zip(first, second, alphas):
        mixed.append(float(alpha) * image1 + (1 - float(alpha)) * image2)
    return torch.stack(mixed)


def shake_shake_gradients(grad, betas):
    """Return what comes back to either branch, with one beta per image."""
    first = [float(beta) * part for part, beta in zip(grad, betas)]
    second = [(1 - float(beta)) * part for part, beta in zip(grad, betas)]
    return torch.stack(first), torch.stack(second)


def shake_drop(branch, keep_probability, draws_for_keep, coefficients):
    """Return (b + c - b * c) * branch per image (Yamada et al. 2018, Eq. 6).

    Args:
        branch: The residual branch; or, with betas for coefficients, the gradient that comes back.
        keep_probability: b is 1 where the draw lies below.
        draws_for_keep: One number in [0, 1) per image.
        coefficients: alpha or beta, one per image.
    """
    scaled = []
    for image, draw, coefficient in zip(branch, draws_for_keep, coefficients):
        b = 1.0 if float(draw) < keep_probability else 0.0
        scaled.append((b + float(coefficient) - b * float(coefficient)) * image)
    return torch.stack(scaled)
