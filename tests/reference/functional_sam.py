"""Functional-SAM, slowly, on functions of explicit weights; nothing of the package is used here."""

import torch

from tests.reference.sam import gradient, moved, perturbation, with_weight_decay


def error_signal(logits, targets, label_smoothing=0.0):
    """Return dL/dz of the mean cross entropy: (softmax(z) - y) / N, with smoothed targets y."""
    num_images, num_classes = logits.shape
    classes = torch.eye(num_classes, dtype=logits.dtype)[targets]
    wanted = (1 - label_smoothing) * classes + label_smoothing / num_classes
    return (logits.softmax(1) - wanted) / num_images


def functional_sam_gradient(logits, targets, weights, rho, decay=0.0, label_smoothing=0.0, adaptive=False):
    """Return J(w + eps)^T r + decay * w, with the Jacobian entry by entry.

    Args:
        logits: The logits of a micro-batch, [N, K], as a function of a list of weights.
        targets: Its classes.
        weights: w.
        rho: Length of eps, which is along the gradient of loss and decay at w.
        decay: Of 1/2 decay ||w||^2 in the loss.
        label_smoothing: Of the loss.
        adaptive: The ball of ASAM.
    """

    def loss(weights):
        return torch.nn.functional.cross_entropy(logits(weights), targets, label_smoothing=label_smoothing)

    uphill = gradient(with_weight_decay(loss, decay), weights)
    there = moved(weights, perturbation(weights, uphill, rho, adaptive))
    r = error_signal(logits(weights), targets, label_smoothing)
    result = [decay * weight for weight in weights]
    for image, row in enumerate(r):
        for number, signal in enumerate(row):
            entry = gradient(lambda weights: logits(weights)[image, number], there)  # noqa: B023
            result = [total + signal.detach() * part for total, part in zip(result, entry)]
    return result
