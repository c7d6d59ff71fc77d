"""Cheaper SAM as the papers define it, slowly, on functions of explicit weights.

Nothing of the package is used here. Weights are lists of float64 tensors, a loss is a function of them, and
a micro-batch is a pair of losses: that of the images which the ascent sees, and that of all its images.
Shares of a run or of a batch are decimals in strings, so that they are exact.
"""

from fractions import Fraction

import torch

from tests.reference.sam import climb, gradient, moved, norm, perturbation


def num_ascent_images(share, num_images):
    """Return how many images, the first ones, the ascent sees: the share, rounded, but at least one."""
    return max(1, round(Fraction(share) * num_images))


def phase(start, stop, num_steps):
    """Return the steps t of a run with start <= t / num_steps < stop."""
    return [t for t in range(num_steps) if Fraction(start) <= Fraction(t, num_steps) < Fraction(stop)]


def mean(gradients):
    """Return the mean of several gradients, weight by weight."""
    return [sum(parts[1:], start=parts[0].clone()) / len(parts) for parts in zip(*gradients)]


def dot(one, other):
    """Return the inner product over all entries together."""
    return sum(float((left * right).sum()) for left, right in zip(one, other))


def orthogonal(g_s, g):
    """Return g_v = g_s - (g_s . g / ||g||^2) g (Liu et al. 2022)."""
    factor = dot(g_s, g) / norm(g) ** 2
    return [left - factor * right for left, right in zip(g_s, g)]


def with_reuse(g, g_v, alpha):
    """Return g + alpha * (||g|| / ||g_v||) * g_v (Liu et al. 2022)."""
    factor = alpha * norm(g) / norm(g_v)
    return [left + factor * right for left, right in zip(g, g_v)]


class Cheaper:
    """The gradients of the updates of one run, in turn.

    Args:
        rho: Radius of the ball.
        num_steps: Updates of the run.
        start: Share of the updates before SAM begins.
        stop: Share of the updates when it ends.
        interval: In that phase, every so many-th update perturbs, the first of it included.
        alpha: Of LookSAM; 0 leaves the updates between with the plain gradient.
        is_norm: Which weights are those of norm layers, a flag for each; only these are perturbed (SAM-ON),
            and the gradient's norm is over these alone. None perturbs all.
        ascent_steps: Of projected gradient ascent, each rho long.
    """

    def __init__(
        self, rho, num_steps, start="0", stop="1", interval=1, alpha=0.0, is_norm=None, ascent_steps=1
    ):
        self.rho, self.alpha, self.is_norm, self.ascent_steps = rho, alpha, is_norm, ascent_steps
        self.phase = phase(start, stop, num_steps)
        self.ascents = self.phase[::interval]
        self.kept = None

    def eps(self, ascent_loss, weights):
        """Return the move uphill of one micro-batch."""
        if self.is_norm is None:
            return climb(ascent_loss, weights, self.rho, self.ascent_steps, 1.0)
        assert self.ascent_steps == 1
        grads = gradient(ascent_loss, weights)
        alone = [grad if flag else torch.zeros_like(grad) for grad, flag in zip(grads, self.is_norm)]
        return perturbation(weights, alone, self.rho)

    def gradient(self, step, micro_batches, weights):
        """Return the gradient of an update, from micro-batches of equal size; to be asked step after step."""
        if step not in self.ascents:
            plain = mean([gradient(loss, weights) for _, loss in micro_batches])
            return with_reuse(plain, self.kept, self.alpha) if self.alpha and step in self.phase else plain
        uphill = [moved(weights, self.eps(ascent_loss, weights)) for ascent_loss, _ in micro_batches]
        g_s = mean([gradient(loss, there) for (_, loss), there in zip(micro_batches, uphill)])
        if self.alpha:
            g = mean([gradient(loss, weights) for _, loss in micro_batches])
            self.kept = orthogonal(g_s, g)
        return g_s
