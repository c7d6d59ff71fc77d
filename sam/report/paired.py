"""Differences between two conditions, paired by seed, with their p values."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from sam.report.interval import Estimate, paired_difference

# The exact test looks at 2^n sums, and 2^20 of them take 20 ms.
MAX_EXACT_PAIRS = 20


class Difference(NamedTuple):
    """A condition minus its baseline. Each p is two-sided, and None if the test cannot be made.

    Attributes:
        estimate: The mean difference over the seeds that both have; None for fewer than two.
        paired_t_p: p of the paired t-test over these seeds.
        sign_flip_p: p of the exact sign-flip test over these seeds.
        welch_p: p of Welch's t-test over all seeds; None if each seed has other data.
        only_condition: The seeds that the baseline lacks.
        only_baseline: The seeds that the condition lacks.
    """

    estimate: Estimate | None
    paired_t_p: float | None
    sign_flip_p: float | None
    welch_p: float | None
    only_condition: tuple[int, ...]
    only_baseline: tuple[int, ...]


def compare(values: Mapping[int, float], baseline: Mapping[int, float], same_data: bool) -> Difference:
    """Compare a condition with its baseline.

    Args:
        values: One value for each seed.
        baseline: One value of the baseline for each seed.
        same_data: Whether all seeds have the same training images and labels. Then seeds need not be paired.
    """
    differences = [values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())]
    return Difference(
        estimate=paired_difference(values, baseline),
        paired_t_p=paired_t_p(differences),
        sign_flip_p=sign_flip_p(differences),
        welch_p=welch_p(values.values(), baseline.values()) if same_data else None,
        only_condition=tuple(sorted(values.keys() - baseline.keys())),
        only_baseline=tuple(sorted(baseline.keys() - values.keys())),
    )


def paired_t_p(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of the t-test of a mean of zero, as scipy.stats.ttest_rel does.

    Args:
        differences: One difference per seed.

    Returns:
        p; None for fewer than two differences, or if all are equal.
    """
    if len(differences) < 2 or not (spread := statistics.stdev(differences)):
        return None
    t = statistics.fmean(differences) * math.sqrt(len(differences)) / spread
    return _two_sided(t, len(differences) - 1)


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Return the p of the exact sign-flip permutation test, as scipy.stats.permutation_test does.

    If the methods do not differ, each difference is as likely with the other sign. p is the share of all 2^n
    choices of signs whose sum is at least as far from zero as the sum that was found. So it is at least
    2 / 2^n, unless all differences are zero.

    Args:
        differences: One difference per seed.

    Returns:
        p; None for fewer than two differences, or for more than MAX_EXACT_PAIRS.
    """
    if not 2 <= len(differences) <= MAX_EXACT_PAIRS:
        return None
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    # Errors are multiples of a hundredth, so equal sums are frequent; rounding must not tell them apart.
    rounding = 1e-12 * math.fsum(map(abs, differences))
    return float(np.mean(np.abs(sums) >= abs(math.fsum(differences)) - rounding))


def welch_p(values: Collection[float], others: Collection[float]) -> float | None:
    """Return the two-sided p of Welch's t-test, as scipy.stats.ttest_ind(equal_var=False) does.

    Args:
        values: One value per run.
        others: One value per run of the other condition.

    Returns:
        p; None if a condition has fewer than two values, or if neither has any spread.
    """
    if min(len(values), len(others)) < 2:
        return None
    first, second = (statistics.variance(group) / len(group) for group in (values, others))
    if not first + second:
        return None
    t = (statistics.fmean(values) - statistics.fmean(others)) / math.sqrt(first + second)
    degrees = (first + second) ** 2 / (first**2 / (len(values) - 1) + second**2 / (len(others) - 1))
    return _two_sided(t, degrees)


def _two_sided(t: float, degrees: float) -> float:
    # scipy.stats has the same function, but takes more than a second to import.
    return float(2 * stdtr(degrees, -abs(t)))
