"""Algorithm 1 of Foret et al. (2021), line by line and slowly, on a function of explicit weights.

Nothing of the package is used here. Weights are lists of float64 tensors; a loss is a function of them.
"""

import torch


def gradient(loss, weights):
    """Return the gradient of loss(weights), one tensor per weight."""
    leaves = [weight.detach().clone().requires_grad_() for weight in weights]
    return list(torch.autograd.grad(loss(leaves), leaves))


def norm(tensors):
    """Return the 2-norm of all entries together, added up entry by entry of each tensor."""
    return sum(float((tensor**2).sum()) for tensor in tensors) ** 0.5


def perturbation(weights, grads, rho, adaptive=False):
    """Return eps of Eq. 2 (p = 2), or that of ASAM (Kwon et al. 2021, Eq. 6) with T = |w|."""
    if not adaptive:
        length = norm(grads)
        return [rho * grad / length for grad in grads]
    scaled = [weight.abs() * grad for weight, grad in zip(weights, grads)]
    length = norm(scaled)
    return [rho * weight.abs() * part / length for weight, part in zip(weights, scaled)]


def sam_gradient(loss, weights, rho, adaptive=False):
    """Return the gradient at w + eps (Eq. 3)."""
    eps = perturbation(weights, gradient(loss, weights), rho, adaptive)
    return gradient(loss, [weight + move for weight, move in zip(weights, eps)])


class Sgd:
    """SGD with weight decay and (Nesterov) momentum, as torch documents it."""

    def __init__(self, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        self.lr, self.momentum, self.nesterov, self.weight_decay = lr, momentum, nesterov, weight_decay
        self.buffers = None

    def step(self, weights, grads, lr=None):
        """Return the weights after one step."""
        grads = [grad + self.weight_decay * weight for weight, grad in zip(weights, grads)]
        if self.buffers is None:
            self.buffers = [grad.clone() for grad in grads]
        else:
            self.buffers = [self.momentum * old + grad for old, grad in zip(self.buffers, grads)]
        moves = self.buffers
        if self.nesterov:
            moves = [grad + self.momentum * buffer for grad, buffer in zip(grads, self.buffers)]
        return [weight - (lr or self.lr) * move for weight, move in zip(weights, moves)]


def clip(grads, largest):
    """Scale all gradients so that their joint norm is at most `largest` (torch adds 1e-6 to the norm)."""
    factor = min(1.0, largest / (norm(grads) + 1e-6))
    return [grad * factor for grad in grads]
