"""F-SAM, VaSSO and LE-SAM as their papers define them, slowly, on functions of explicit weights.

Nothing of the package is used here. Weights are lists of float64 tensors, a loss is a function of them, and
a micro-batch is a pair of losses: that of the images which the ascent sees, and that of all its images. The
micro-batches of an update have the same size.
"""

import math

from tests.reference.cheaper import mean
from tests.reference.sam import gradient, moved, norm, perturbation


def mean_perturbed(eps, micro_batches, weights):
    """Return the mean of the gradients at w + eps, each micro-batch with an eps of its own."""
    there = [moved(weights, eps(ascent_loss, weights)) for ascent_loss, _ in micro_batches]
    return mean([gradient(loss, point) for (_, loss), point in zip(micro_batches, there)])


class FSAM:
    """Li et al. (CVPR 2024): eps along g - sigma * m, m the average of the updates before."""

    def __init__(self, rho, sigma, decay, **ball):
        self.rho, self.sigma, self.decay, self.ball = rho, sigma, decay, ball
        self.m = None

    def eps(self, loss, weights):
        """Return eps of one micro-batch."""
        d = gradient(loss, weights)
        if self.m is not None:
            d = [g - self.sigma * m for g, m in zip(d, self.m)]
        return perturbation(weights, d, self.rho, **self.ball)

    def gradient(self, micro_batches, weights):
        """Return the gradient of an update; m then takes in the mean of the gradients at w."""
        result = mean_perturbed(self.eps, micro_batches, weights)
        g = mean([gradient(ascent_loss, weights) for ascent_loss, _ in micro_batches])
        if self.m is None:
            self.m = g
        else:
            self.m = [self.decay * old + (1 - self.decay) * new for old, new in zip(self.m, g)]
        return result


class VaSSO:
    """Li and Giannakis (NeurIPS 2023): eps along the average itself."""

    def __init__(self, rho, theta, **ball):
        self.rho, self.theta, self.ball = rho, theta, ball
        self.d = None

    def own(self, loss, weights):
        """Return the d_i of one micro-batch."""
        g = gradient(loss, weights)
        if self.d is None:
            return g
        return [(1 - self.theta) * old + self.theta * new for old, new in zip(self.d, g)]

    def eps(self, loss, weights):
        """Return eps of one micro-batch."""
        return perturbation(weights, self.own(loss, weights), self.rho, **self.ball)

    def gradient(self, micro_batches, weights):
        """Return the gradient of an update; d is then the mean of the d_i."""
        result = mean_perturbed(self.eps, micro_batches, weights)
        self.d = mean([self.own(ascent_loss, weights) for ascent_loss, _ in micro_batches])
        return result


class LESAM:
    """arXiv 2605.10183: eps of the length that raises the linearised loss by sigma, or of rho_max."""

    def __init__(self, rho_max, sigma, num_steps=None, warm_up=0.05, fall=0.8, adaptive=False):
        self.rho_max, self.sigma, self.adaptive = rho_max, sigma, adaptive
        self.num_steps, self.warm_up, self.fall, self.step = num_steps, warm_up, fall, 0

    def sigma_now(self):
        """Return sigma of this update."""
        if self.num_steps is None:
            return self.sigma
        rise, end = self.warm_up * self.num_steps, self.fall * self.num_steps
        if self.step < rise:
            return self.sigma * self.step / rise
        if self.step > end:
            return self.sigma * (1 + math.cos(math.pi * (self.step - end) / (self.num_steps - end))) / 2
        return self.sigma

    def eps(self, loss, weights):
        """Return eps of one micro-batch."""
        g = gradient(loss, weights)
        length = norm([weight * part for weight, part in zip(weights, g)] if self.adaptive else g)
        rho = min(self.sigma_now() / length, self.rho_max)
        return perturbation(weights, g, rho, self.adaptive)

    def gradient(self, micro_batches, weights):
        """Return the gradient of an update."""
        result = mean_perturbed(self.eps, micro_batches, weights)
        self.step += 1
        return result
