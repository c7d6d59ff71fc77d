"""Gates: random coefficients multiply residual branches, and other random ones multiply their gradients.

Shake-Shake: Gastaldi (2017), Shake-Shake regularization. ShakeDrop: Yamada et al. (2018), ShakeDrop
regularization. Each image has its own coefficients, as in the released code of the SAM paper.

SAM has two passes. In the released code, the first pass has the true gradient: it uses the forward
coefficients in the backward pass too. The second pass uses independent ones, as usual. The SAM paper does not
mention this. Here each gate has a switch, true_gradient, which does not change the numbers it draws.

Numbers come from torch's default generator of the images' device, in float32 at any precision. Saving and
restoring torch's random state therefore repeats a pass bit for bit. In training, a gate draws a tensor [k, N]
for N images in each pass; its docstring gives k. In evaluation it draws nothing.

Departure: to get the product f forward and the gradient of the product b, the released code computes
b + (f - b). Here the multiplication has its own backward function, so the forward result has no such rounding
error.
"""

from typing import Any

import torch
from torch import Tensor, nn


class _Scale(torch.autograd.Function):
    """Multiplies by one coefficient in the forward pass and by another in the backward pass."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, coefficients: Tensor, backward_coefficients: Tensor) -> Tensor:
        ctx.save_for_backward(backward_coefficients)
        return images * coefficients

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (backward_coefficients,) = ctx.saved_tensors
        return grads[0] * backward_coefficients, None, None


class Gate(nn.Module):
    """The base of all gates. With `true_gradient`, the backward pass uses the forward coefficients."""

    def __init__(self) -> None:
        super().__init__()
        self.true_gradient = False

    def scale(self, images: Tensor, coefficients: Tensor, backward_coefficients: Tensor) -> Tensor:
        """Return images * coefficients with the gradient of images * backward_coefficients.

        Args:
            images: [N, C, H, W]; the result has its type and memory format.
            coefficients: [N, 1, 1, 1].
            backward_coefficients: [N, 1, 1, 1]; unused if true_gradient is set.
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

    In the backward pass, an independent beta replaces alpha. In evaluation, both branches have weight 1/2.
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

    b is 1 with probability keep_probability, else 0. alpha is uniform in [-1, 1). The backward pass uses the
    same b, and an independent beta, uniform in [0, 1), instead of alpha. In evaluation the factor is its
    expected value: keep_probability, since alpha is 0 on average. Draws [3, N], for b, alpha and beta.

    Args:
        keep_probability: Probability of an unchanged branch, 0 to 1.

    Raises:
        ValueError: If the probability is outside this range.
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
    """Set whether the gates of a model use their forward coefficients in the backward pass too.

    Args:
        model: Any network, with or without gates.
        flag: True gives the gradient of the computed function; False gives the gradient of the papers.
    """
    for module in model.modules():
        if isinstance(module, Gate):
            module.true_gradient = flag
