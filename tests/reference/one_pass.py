"""MSAM and S2-SAM with SGD, slowly, on functions of explicit weights; nothing of the package is used here.

Weights are lists of float64 tensors. A batch is a list of losses, one for each of its micro-batches of equal
size. Weight decay in the loss and in the optimizer differ in the place where it acts: w~ or w.
"""

from tests.reference.cheaper import mean
from tests.reference.sam import Sgd, clip, gradient, moved, norm


class OnePass:
    """The weights of a run, update by update.

    Args:
        weights: The first weights.
        rho: Length of the move.
        momentum: mu.
        nesterov: Whether the step is g + mu v, with the new v.
        decay: Weight decay.
        decay_in: "loss": the gradient of the update has decay * w~; "optimizer": SGD adds decay * w.
        largest: Largest norm of the gradient, or None; with decay in the loss, decay * w~ is a part of it.
    """

    def __init__(
        self, weights, rho, momentum=0.9, nesterov=False, decay=0.0, decay_in="optimizer", largest=None
    ):
        in_loss = decay_in == "loss"
        self.weights, self.rho, self.largest = weights, rho, largest
        self.decay_in_loss = decay if in_loss else 0.0
        self.sgd = Sgd(0.1, momentum, nesterov, 0.0 if in_loss else decay)
        self.previous = None

    def move(self):
        """Return w~ - w."""
        raise NotImplementedError

    def point(self):
        """Return w~, the point of the only pass."""
        return moved(self.weights, self.move())

    def update(self, losses, lr, is_skipped=False):
        """Make one update; an update that is skipped changes nothing."""
        there = self.point()
        plain = mean([gradient(loss, there) for loss in losses])
        if is_skipped:
            return
        self.previous = plain
        grads = [grad + self.decay_in_loss * weight for grad, weight in zip(plain, there)]
        if self.largest is not None:
            grads = clip(grads, self.largest)
        self.weights = self.sgd.step(self.weights, grads, lr)

    def along(self, direction, factor):
        """Return factor * direction / ||direction||; zeros without a direction."""
        if direction is None or norm(direction) == 0:
            return [0 * weight for weight in self.weights]
        return [factor * part / norm(direction) for part in direction]


class MSAM(OnePass):
    """w~ = w - rho v / ||v||; v = mu v + g(w~) (+ decay w~ or decay w); w = w - lr v."""

    def move(self):
        return self.along(self.sgd.buffers, -self.rho)


class S2SAM(OnePass):
    """w~ = w + rho g_before / ||g_before||, with the gradient of the update before, at its w~."""

    def move(self):
        return self.along(self.previous, self.rho)
