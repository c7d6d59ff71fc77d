"""Sharpness and surfaces of the loss of a network, point by point on copies, in float64.

Nothing of the package is used here. A part is one of those in which a network sees its images: with batch
statistics each has its own.
"""

import copy

import torch
from torch import nn
from torch.nn import functional

from tests.reference.sam import climb, gradient, moved, perturbation


def logits_of(network, weights, images, part_size, batch_statistics=False):
    """Return the logits with other weights; the network itself is left alone."""
    names = [name for name, _ in network.named_parameters()]
    logits = []
    for part in images.double().split(part_size):
        twin = copy.deepcopy(network).double().eval()
        for layer in twin.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.train(batch_statistics)
        logits.append(torch.func.functional_call(twin, dict(zip(names, weights)), (part,)))
    return torch.cat(logits)


def loss_and_error(network, images, targets, weights=None, **parts):
    """Return mean cross entropy, and how many percent of the images are taken for another class.

    Args:
        network: Left alone.
        images: All.
        targets: Likewise.
        weights: Instead of its own.
        **parts: part_size, batch_statistics.
    """
    weights = [weight.double() for weight in network.parameters()] if weights is None else weights
    logits = logits_of(network, weights, images, **parts).detach()
    loss = sum(float(functional.cross_entropy(row, target)) for row, target in zip(logits, targets))
    num_wrong = sum(int(row.argmax() != target) for row, target in zip(logits, targets))
    return loss / len(targets), 100 * num_wrong / len(targets)


def rises(network, images, targets, m, rho, steps, step_size=1.0, adaptive=False, **parts):
    """Return for each subset of m images in turn its size and the rises of its loss and of its error."""
    weights = [weight.detach().double() for weight in network.parameters()]
    rows = []
    for start in range(0, len(targets), m):
        x, y = images[start : start + m], targets[start : start + m]

        def loss(leaves, x=x, y=y):
            return functional.cross_entropy(logits_of(network, leaves, x, **parts), y)

        if adaptive:
            eps = perturbation(weights, gradient(loss, weights), rho, adaptive=True)
        else:
            eps = climb(loss, weights, rho, steps, step_size)
        before = loss_and_error(network, x, y, **parts)
        after = loss_and_error(network, x, y, moved(weights, eps), **parts)
        rows.append((len(y), after[0] - before[0], after[1] - before[1]))
    return rows


def mean_rises(rows):
    """Return the mean rise of loss and of error over all images, and the standard error of the former."""
    num_images = sum(size for size, _, _ in rows)
    loss_rise = sum(size * rise for size, rise, _ in rows) / num_images
    error_rise = sum(size * rise for size, _, rise in rows) / num_images
    squares = sum((size / num_images * (rise - loss_rise)) ** 2 for size, rise, _ in rows)
    standard_error = (len(rows) / (len(rows) - 1) * squares) ** 0.5 if len(rows) > 1 else None
    return loss_rise, error_rise, standard_error


def normalised_by_filter(weight, direction):
    """Return a direction whose every filter has the length of that of the weight (Li et al. 2018)."""
    if weight.dim() < 2:
        return torch.zeros_like(weight)
    filters = []
    for filter_of_weight, filter_of_direction in zip(weight.detach(), direction):
        length = float((filter_of_weight**2).sum()) ** 0.5
        filters.append(filter_of_direction * length / float((filter_of_direction**2).sum()) ** 0.5)
    return torch.stack(filters)


def between(network, other, along):
    """Return a copy of a network on the straight line to another one; statistics stop at the ends."""
    twin = copy.deepcopy(network)
    for mine, theirs in zip(twin.parameters(), other.parameters()):
        mine.data += along * (theirs.data - mine.data)
    for mine, theirs in zip(twin.buffers(), other.buffers()):
        if mine.is_floating_point():
            mine += min(max(along, 0), 1) * (theirs - mine)
    return twin
