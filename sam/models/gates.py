"""Gates: residual branches multiplied by random numbers, one per image, and by other ones going backward.

Shake-Shake: Gastaldi (2017), Shake-Shake regularization. ShakeDrop: Yamada et al. (2018), ShakeDrop
regularization. All numbers are drawn per image, as in the released code of the SAM paper.

Two passes of SAM: that code lets the first pass have the true gradient, with the forward numbers going
backward too, and the second the usual independent ones; the SAM paper is silent about it. Here every gate
has a switch, true_gradient, and draws the same numbers whichever way it stands.

Numbers come from torch's default generator of the images' device, in float32 whatever the precision, so
saving and restoring torch's random state repeats a pass bit for bit. A batch of N images takes a tensor
[k, N] of them per gate and pass, k as each gate says, and none in evaluation.

Departure: the released code computes b + (f - b) from the two products f and b, to have f forward and the
gradient of b; here the multiplication has its own backward, so forward is free of that rounding.
"""

from typing import Any

import torch
from torch import Tensor, nn


class _Scale(torch.autograd.Function):
    """Multiplies by one coefficient going forward and by another going backward."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, coefficients: Tensor, backward_coefficients: Tensor) -> Tensor:
        ctx.save_for_backward(backward_coefficients)
        return images * coefficients

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (backward_coefficients,) = ctx.saved_tensors
        return grads[0] * backward_coefficients, None, None


class Gate(nn.Module):
    """What the gates share; `true_gradient` says whether backward uses the forward coefficients."""

    def __init__(self) -> None:
        super().__init__()
        self.true_gradient = False

    def scale(self, images: Tensor, coefficients: Tensor, backward_coefficients: Tensor) -> Tensor:
        """Return images * coefficients, whose gradient is that of images * backward_coefficients.

        Args:
            images: [N, C, H, W]; the result has its type and memory format.
            coefficients: [N, 1, 1, 1].
            backward_coefficients: [N, 1, 1, 1]; not used if true_gradient is set.
        """
        coefficients = coefficients.to(images.dtype)
        if self.true_gradient:
            return images * coefficients
        scaled: Tensor = _Scale.apply(images, coefficients, backward_coefficients.to(images.dtype))
        return scaled


def draw(count: int, images: Tensor) -> Tensor:
    """Return `count` numbers per image, uniform in [0, 1): float32 [count, N, 1, 1, 1]."""
    return torch.rand(count, len(images), 1, 1, 1, device=images.device, dtype=torch.float32)


class ShakeShake(Gate):
    """Mixes two branches: alpha * first + (1 - alpha) * second, with alpha uniform in [0, 1).

    Going backward an independent beta takes the place of alpha. In evaluation both halves count the same.
    Draws [2, N]: alpha, beta.
    """

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Map two tensors [N, C, H, W] to one."""
        if not self.training:
            return (first + second) * 0.5
        alpha, beta = draw(2, first)
        return self.scale(first, alpha, beta) + self.scale(second, 1 - alpha, 1 - beta)


class ShakeDrop(Gate):
    """Multiplies a branch by b + (1 - b) * alpha (Yamada et al. 2018, Eq. 6: b + alpha - b * alpha).

    b is 1 with the keep probability, else 0; alpha is uniform in [-1, 1). Going backward, the same b and an
    independent beta, uniform in [0, 1), in place of alpha. In evaluation the factor is the expected one,
    which is the keep probability, since alpha is 0 on average. Draws [3, N], for b, alpha and beta.

    Args:
        keep_probability: Of leaving the branch as it is, 0 to 1.

    Raises:
        ValueError: If it lies outside.
    """

    def __init__(self, keep_probability: float) -> None:
        super().__init__()
        if not 0 <= keep_probability <= 1:
            raise ValueError(f"keep_probability must be from 0 to 1, got {keep_probability}")
        self.keep_probability = keep_probability

    def forward(self, branch: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        if not self.training:
            return branch * self.keep_probability
        for_b, for_alpha, beta = draw(3, branch)
        keep = for_b < self.keep_probability
        alpha = 2 * for_alpha - 1
        return self.scale(branch, torch.where(keep, 1.0, alpha), torch.where(keep, 1.0, beta))


def set_true_gradient(model: nn.Module, flag: bool) -> None:
    """Let all gates of a model use their forward coefficients going backward too, or not.

    Args:
        model: May hold no gates at all.
        flag: True: the gradient of the function that was computed. False: the regularisers' usual one.
    """
    for module in model.modules():
        if isinstance(module, Gate):
            module.true_gradient = flag
