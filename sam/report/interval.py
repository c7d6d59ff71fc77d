"""Means over seeds with their Student-t intervals, of 95 % if nothing else is said."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.special import stdtrit


class Estimate(NamedTuple):
    """A mean over runs.

    Attributes:
        mean: The arithmetic mean.
        half_width: Half the width of its interval; None for a single value.
        num_values: Number of values.
    """

    mean: float
    half_width: float | None
    num_values: int


def estimate(values: Sequence[float], level: float = 0.95) -> Estimate | None:
    """Estimate the common mean of independent values.

    mean +- t * s / sqrt(n), with t the quantile of Student's t distribution with n - 1 degrees of freedom
    (97.5 % for a 95 % interval), and s the standard deviation with n - 1 in its denominator.

    Args:
        values: One number per run, for example test errors in percent.
        level: Coverage of the interval, between 0 and 1.

    Returns:
        The estimate, in the unit of the values; None if there are no values.
    """
    if not values:
        return None
    if len(values) == 1:
        return Estimate(values[0], None, 1)
    # scipy.stats.t.ppf is the same function, but takes a second to import.
    quantile = float(stdtrit(len(values) - 1, (1 + level) / 2))
    half_width = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(statistics.fmean(values), half_width, len(values))


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate | None:
    """Estimate the mean difference between runs and baseline runs with the same seeds.

    The differences per seed are treated as independent values (a paired t interval).

    Args:
        values: One value for each seed.
        baseline: One value of the baseline for each seed.

    Returns:
        The estimate over the seeds that both have; None for fewer than two such seeds.
    """
    shared_seeds = sorted(values.keys() & baseline.keys())
    if len(shared_seeds) < 2:
        return None
    return estimate([values[seed] - baseline[seed] for seed in shared_seeds])
