"""Tests of sam/report/paired.py against scipy.stats and closed forms."""

import numpy as np
import pytest
from scipy import stats

from sam.report.paired import MAX_EXACT_PAIRS, compare, paired_t_p, sign_flip_p, welch_p


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_pairs", [2, 5, 10, 13])
def test_p_values_equal_those_of_scipy(num_pairs: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    # Multiples of a hundredth, as measured errors are, so that many sums of signs are equal.
    values = np.round(generator.normal(40, 1, num_pairs), 2)
    others = np.round(generator.normal(40.5, 2, num_pairs), 2)
    differences = list(values - others)
    exact = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=2**num_pairs, vectorized=True
    )
    assert paired_t_p(differences) == pytest.approx(stats.ttest_rel(values, others).pvalue, rel=1e-9)
    assert sign_flip_p(differences) == pytest.approx(exact.pvalue, rel=1e-9)
    unpaired = stats.ttest_ind(values, others[1:], equal_var=False).pvalue
    if num_pairs > 2:
        assert welch_p(list(values), list(others[1:])) == pytest.approx(unpaired, rel=1e-9)


def test_sign_flip_p_of_differences_of_one_sign_is_the_smallest_possible() -> None:
    assert sign_flip_p([-1.0, -2.0, -0.5]) == 2 / 2**3
    assert sign_flip_p([0.1] * MAX_EXACT_PAIRS) == 2 / 2**MAX_EXACT_PAIRS


def test_sign_flip_p_counts_sums_that_only_rounding_tells_apart() -> None:
    # |0.1 + 0.2 - 0.3| = 0, and every choice of signs is at least as far from zero.
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0
    # The sums are 1.2 and -1.2 once each, 0.6 and -0.6 twice each, and 0 twice.
    assert sign_flip_p([0.3, 0.3, 0.6]) == 2 / 8
    assert sign_flip_p([0.3, -0.3, 0.6]) == 6 / 8


def test_tests_without_a_result_are_none() -> None:
    assert paired_t_p([1.0]) is None
    assert paired_t_p([0.5, 0.5, 0.5]) is None
    assert sign_flip_p([1.0]) is None
    assert sign_flip_p([1.0] * (MAX_EXACT_PAIRS + 1)) is None
    assert welch_p([1.0], [2.0, 3.0]) is None
    assert welch_p([1.0, 1.0], [2.0, 2.0]) is None


def test_difference_names_the_seeds_without_a_partner() -> None:
    found = compare({0: 3.0, 1: 4.0, 5: 9.0}, {0: 4.0, 1: 7.0, 9: 0.0, 8: 1.0}, same_data=True)
    assert (found.only_condition, found.only_baseline) == ((5,), (8, 9))
    assert found.estimate is not None and found.estimate.num_values == 2
    # Welch's test needs no pairs: it uses all seeds.
    assert found.welch_p == welch_p([3.0, 4.0, 9.0], [4.0, 7.0, 0.0, 1.0])


def test_difference_has_no_welch_p_if_each_seed_has_other_data() -> None:
    assert compare({0: 3.0, 1: 4.0}, {0: 4.0, 1: 7.0}, same_data=False).welch_p is None
