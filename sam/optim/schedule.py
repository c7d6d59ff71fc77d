"""The learning rate, LE-SAM's sigma, and the updates that perturb, as functions of the step (no state)."""

import dataclasses
import math
import sys


def cosine(step: int, num_steps: int, num_warm_up_steps: int = 0) -> float:
    """Return the factor of the learning rate: 0.5 * (1 + cos(pi * step / num_steps)) without warm-up.

    With a warm-up of W steps, the factor is (step + 1) / W in these steps (Goyal et al. 2017, section 2.2).
    The cosine then covers the other steps.

    Args:
        step: Number of updates already made, 0 .. num_steps.
        num_steps: Number of updates in the whole run, at least 1.
        num_warm_up_steps: Number of updates of the warm-up, 0 .. num_steps - 1.

    Returns:
        1 at the first step after the warm-up; it falls to 0 after the last step.
    """
    if step < num_warm_up_steps:
        return (step + 1) / num_warm_up_steps
    return 0.5 * (1 + math.cos(math.pi * (step - num_warm_up_steps) / (num_steps - num_warm_up_steps)))


def rise_and_fall(step: int, num_steps: int, warm_up: float = 0.05, fall: float = 0.8) -> float:
    """Return the factor of sigma in LE-SAM: it rises along a line, stays, and falls along a cosine.

    The defaults are the schedule of the authors' code (arXiv 2605.10183): a rise in the first 10 of 200
    epochs, and a fall in the last 40.

    Args:
        step: Number of updates already made, 0 .. num_steps.
        num_steps: Number of updates in the whole run, at least 1.
        warm_up: Share of the updates with the rise; 0 <= warm_up <= fall.
        fall: Share of the updates before the fall; <= 1.

    Returns:
        0 at the first step (1 without a rise); 1 between rise and fall; 0 after the last step if it falls.
    """
    share = step / num_steps
    if share < warm_up:
        return share / warm_up
    return 1.0 if share <= fall else 0.5 * (1 + math.cos(math.pi * (share - fall) / (1 - fall)))


@dataclasses.dataclass(frozen=True)
class Ascents:
    """The updates that perturb: within SAM's phase, the first update and every interval-th update after it.

    Periodic SAM (Liu et al. 2022), and SAM in one phase of training only (Zhou et al. 2025).
    """

    first: int  # number of the phase's first update, counted from 0
    end: int  # number of the first update after the phase
    interval: int = 1

    @classmethod
    def between(cls, start: float, stop: float, num_steps: int, interval: int = 1) -> "Ascents":
        """Return the phase from the share `start` to the share `stop` of a run.

        Step t belongs to the phase if start <= t / num_steps < stop.

        Args:
            start: 0 <= start < 1.
            stop: 0 < stop <= 1.
            num_steps: Number of updates in the whole run.
            interval: Every interval-th update of the phase perturbs; at least 1.

        Raises:
            ValueError: If no update belongs to the phase.
        """
        # Floating point: 0.07 * 100 is a bit more than 7.
        first, end = (math.ceil(share * num_steps - 1e-6) for share in (start, stop))
        if first >= end:
            raise ValueError(
                f"start={start} and stop={stop} leave SAM no update of {num_steps}; move them apart, or "
                "train longer"
            )
        return cls(first, end, interval)

    def covers(self, step: int) -> bool:
        """Return whether an update belongs to the phase."""
        return self.first <= step < self.end

    def includes(self, step: int) -> bool:
        """Return whether an update perturbs."""
        return self.covers(step) and (step - self.first) % self.interval == 0


ALWAYS = Ascents(0, sys.maxsize)
