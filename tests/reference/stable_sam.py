"""Stable SAM, slowly, on functions of explicit weights; nothing of the package is used here."""

from tests.reference.sam import gradient, norm, sam_gradient


def stable_sam_gradient(loss, weights, rho, adaptive=False):
    """Return SAM's gradient h, scaled by ||g|| / ||h||, with g the gradient at w."""
    g, h = gradient(loss, weights), sam_gradient(loss, weights, rho, adaptive)
    return [part * norm(g) / norm(h) for part in h]
