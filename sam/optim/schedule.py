"""The learning rate as a pure function of the step, so that there is no state to save."""

import math


def cosine(step: int, num_steps: int) -> float:
    """Return the factor of the learning rate: 0.5 * (1 + cos(pi * step / num_steps)), no warm-up.

    Args:
        step: Number of updates already made, 0 .. num_steps.
        num_steps: Updates of the whole run, at least 1.

    Returns:
        1 at the first step, falling to 0 after the last.
    """
    return 0.5 * (1 + math.cos(math.pi * step / num_steps))
