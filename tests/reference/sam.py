"""Algorithm 1 of Foret et al. (2021), line by line and slowly, on a function of explicit weights.

Nothing of the package is used here. Weights are lists of float64 tensors; a loss is a function of them.
"""

import math

import torch


def gradient(loss, weights):
    """Return the gradient of loss(weights), one tensor per weight."""
    leaves = [weight.detach().clone().requires_grad_() for weight in weights]
    return list(torch.autograd.grad(loss(leaves), leaves))


def norm(tensors):
    """Return the 2-norm of all entries together, added up entry by entry of each tensor."""
    return sum(float((tensor**2).sum()) for tensor in tensors) ** 0.5


def p_norm(tensors, p):
    """Return the p-norm of all entries together."""
    joined = torch.cat([tensor.abs().flatten() for tensor in tensors])
    return float(joined.max()) if p == math.inf else float((joined**p).sum()) ** (1 / p)


def perturbation(weights, grads, rho, adaptive=False, p=2):
    """Return eps of Eq. 2, or that of ASAM (Kwon et al. 2021, Eq. 6) with T = |w|."""
    if adaptive:
        scaled = [weight.abs() * grad for weight, grad in zip(weights, grads)]
        length = norm(scaled)
        return [rho * weight.abs() * part / length for weight, part in zip(weights, scaled)]
    if p == 2:
        length = norm(grads)
        return [rho * grad / length for grad in grads]
    q = 1 if p == math.inf else p / (p - 1)
    divisor = sum(float((grad.abs() ** q).sum()) for grad in grads) ** (1 / p)
    return [rho * grad.sign() * grad.abs() ** (q - 1) / divisor for grad in grads]


def moved(weights, moves):
    """Return the sums."""
    return [weight.detach() + move for weight, move in zip(weights, moves)]


def sam_gradient(loss, weights, rho, adaptive=False, p=2):
    """Return the gradient at w + eps (Eq. 3)."""
    eps = perturbation(weights, gradient(loss, weights), rho, adaptive, p)
    return gradient(loss, moved(weights, eps))


def climb(loss, weights, rho, steps, step_size):
    """Return eps after projected gradient ascent: a step of length rho, then others of step_size * rho."""
    eps = perturbation(weights, gradient(loss, weights), rho)
    for _ in range(steps - 1):
        step = perturbation(weights, gradient(loss, moved(weights, eps)), step_size * rho)
        eps = [old + more for old, more in zip(eps, step)]
        if norm(eps) > rho:
            eps = [move * rho / norm(eps) for move in eps]
    return eps


def second_order_gradient(loss, weights, rho):
    """Return v + (d eps / dw)^T v, v the gradient at w + eps, from the whole Hessian H at w.

    eps = rho * g / ||g||, so d eps / dw = rho * (I / ||g|| - g g^T / ||g||^3) H.
    """
    sizes, shapes = [weight.numel() for weight in weights], [weight.shape for weight in weights]

    def flat_loss(vector):
        return loss([part.view(shape) for part, shape in zip(vector.split(sizes), shapes)])

    start = torch.cat([weight.detach().flatten() for weight in weights])
    (g,) = gradient(lambda leaves: flat_loss(leaves[0]), [start])
    hessian = torch.autograd.functional.hessian(flat_loss, start)
    (v,) = gradient(lambda leaves: flat_loss(leaves[0]), [start + rho * g / g.norm()])
    jacobian = (
        rho * (torch.eye(len(g), dtype=g.dtype) / g.norm() - torch.outer(g, g) / g.norm() ** 3) @ hessian
    )
    return [part.view(shape) for part, shape in zip((v + jacobian.T @ v).split(sizes), shapes)]


def with_weight_decay(loss, weight_decay):
    """Return the loss plus 0.5 * weight_decay * sum(w^2)."""
    return lambda weights: loss(weights) + 0.5 * weight_decay * sum((weight**2).sum() for weight in weights)


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
