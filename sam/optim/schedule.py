"""The learning rate, and when SAM perturbs, as pure functions of the step: there is no state to save."""

import dataclasses
import math
import sys


def cosine(step: int, num_steps: int) -> float:
    """Return the factor of the learning rate: 0.5 * (1 + cos(pi * step / num_steps)), no warm-up.

    Args:
        step: Number of updates already made, 0 .. num_steps.
        num_steps: Updates of the whole run, at least 1.

    Returns:
        1 at the first step, falling to 0 after the last.
    """
    return 0.5 * (1 + math.cos(math.pi * step / num_steps))


@dataclasses.dataclass(frozen=True)
class Ascents:
    """Which updates perturb: every interval-th from the first on, up to the end of SAM's phase.

    Periodic SAM (Liu et al. 2022), and SAM in a phase of training only (Zhou et al. 2025).
    """

    first: int  # number of the first update of the phase, from 0
    end: int  # of the one after its last
    interval: int = 1

    @classmethod
    def between(cls, start: float, stop: float, num_steps: int, interval: int = 1) -> "Ascents":
        """Make a phase from shares of a run: step t belongs to it if start <= t / num_steps < stop.

        Args:
            start: 0 <= start < 1.
            stop: 0 < stop <= 1.
            num_steps: Updates of the whole run.
            interval: At least 1.

        Raises:
            ValueError: If no update belongs to the phase.
        """
        # Shares are not exact: 0.07 * 100 is a bit more than 7.
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
