"""Tests of sam/report/interval.py against closed forms and a printed t table."""

import math

import pytest

from sam.report.interval import Estimate, estimate, paired_difference


def test_estimate_of_two_values_equals_the_closed_form() -> None:
    # s = |2 - 4| / sqrt(2) and t = 12.7062 with 1 degree of freedom, so t * s / sqrt(2) = 12.7062.
    result = estimate([2.0, 4.0])
    assert result is not None
    assert result.mean == 3.0
    assert result.half_width == pytest.approx(12.7062, abs=1e-4)
    assert result.num_values == 2


def test_estimate_of_five_values_equals_the_closed_form() -> None:
    # Squared deviations 4 + 1 + 0 + 1 + 4 = 10, so s = sqrt(10 / 4); t = 2.7764 with 4 degrees.
    result = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert result is not None
    assert result.mean == 3.0
    assert result.half_width == pytest.approx(2.7764 * math.sqrt(2.5 / 5), abs=1e-4)


def test_estimate_of_equal_values_has_no_width() -> None:
    assert estimate([2.5, 2.5, 2.5]) == Estimate(2.5, 0.0, 3)


def test_estimate_of_one_value_has_no_interval() -> None:
    assert estimate([2.5]) == Estimate(2.5, None, 1)


def test_estimate_of_nothing_is_none() -> None:
    assert estimate([]) is None


def test_paired_difference_uses_shared_seeds_only() -> None:
    # Differences -1 and -3 at seeds 0 and 1: mean -2, half-width 12.7062 * sqrt(2) / sqrt(2).
    result = paired_difference({0: 3.0, 1: 4.0, 5: 100.0}, {0: 4.0, 1: 7.0, 9: 0.0})
    assert result is not None
    assert result.mean == -2.0
    assert result.half_width == pytest.approx(12.7062, abs=1e-4)
    assert result.num_values == 2


def test_paired_difference_ignores_what_seeds_have_in_common() -> None:
    # The shift is one point at every seed, so its interval has no width, although the seeds differ.
    baseline = {0: 3.0, 1: 8.0, 2: 20.0}
    result = paired_difference({seed: value - 1 for seed, value in baseline.items()}, baseline)
    assert result == Estimate(-1.0, 0.0, 3)


@pytest.mark.parametrize("values", [{}, {0: 1.0}, {0: 1.0, 5: 2.0}])
def test_paired_difference_needs_two_shared_seeds(values: dict[int, float]) -> None:
    assert paired_difference(values, {0: 1.0, 1: 1.0}) is None
