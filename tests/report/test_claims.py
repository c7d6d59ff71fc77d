"""Tests of sam/report/claims.py: Holm's correction, the plan's rules, and how often chance passes a test."""

import math

import numpy as np
import pytest
from scipy import stats

from sam.report.claims import (
    CLAIMS,
    FAILS,
    HOLDS,
    OPEN,
    choose,
    holm,
    outcomes,
    seeds_to_decide,
    verdict,
)
from sam.report.paired import paired_t_p, sign_flip_p
from tests.report.plan_rows import all_rows, row, run_rows, search_rows

T1, T2, T3, T4 = CLAIMS


def test_holm_equals_the_printed_example() -> None:
    # 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1 is at least the value before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("differences", "p_values", "margin", "expected"),
    [
        ([-2.0, -2.2, -1.8], (0.009, 0.0099), 1.0, HOLDS),
        ([-2.0, -2.2, -1.8], (0.009, 0.01), 1.0, OPEN),
        ([2.0, 2.2, 1.8], (0.001, 0.002), 1.0, FAILS),
        ([2.0, 2.2, 1.8], (0.001, 0.002), None, FAILS),
        ([0.1, -0.1, 0.0], (1.0, 1.0), 1.0, FAILS),
        ([0.1, -0.1, 0.0], (1.0, 1.0), None, OPEN),
        # The 98 % interval of three values is 6.9646 * s / sqrt(3) wide to each side: 0.99 and 1.01 points.
        ([0.2462, -0.2462, 0.0], (1.0, 1.0), 1.0, FAILS),
        ([0.2512, -0.2512, 0.0], (1.0, 1.0), 1.0, OPEN),
    ],
)
def test_verdict_is_that_of_the_plan(
    differences: list[float], p_values: tuple[float, float], margin: float | None, expected: str
) -> None:
    assert verdict(differences, p_values, margin) == expected


def test_outcomes_of_all_blocks_follow_from_the_rows_alone() -> None:
    first, second, third, fourth = outcomes(all_rows())
    assert [found.verdict for found in (first, second, third, fourth)] == [HOLDS, FAILS, OPEN, HOLDS]
    assert [len(found.pairs) for found in (first, second, third, fourth)] == [12, 10, 10, 12]
    # T1 and T4 have the smallest possible sign-flip p, the others about 1: 4 * 2 / 2^12.
    assert first.p_values[1] == fourth.p_values[1] == 8 / 2**12
    # T4 compares logs: 8 with SGD, 3 with SAM at seed 100.
    assert fourth.pairs[100] == pytest.approx((math.log(8), math.log(3)))


def test_missing_runs_give_no_result_and_no_look_at_the_others() -> None:
    search = outcomes(search_rows(T1)[1:])[0]
    assert (search.verdict, search.choice, search.pairs) == ("not run yet: the search is missing", None, {})
    runs = [*search_rows(T1), *run_rows(T1, [-2.0] * 11)]
    found = outcomes(runs)[0]
    assert (found.verdict, found.pairs, found.p_values) == (
        "not run yet: 1 of 12 pairs are missing",
        {},
        (1.0, 1.0),
    )
    complete = [*runs, *run_rows(T1, [-2.0, -2.1] * 6)[22:]]
    bare = [{**one, "lambda_max": ""} for one in complete]
    assert outcomes(bare)[3].verdict == "not run yet: 12 of 12 pairs of Hessians are missing"


def test_block_with_a_large_spread_is_extended_once() -> None:
    differences = [-3.0, 0.0] * 5
    rows = search_rows(T2)
    found = outcomes([*rows, *run_rows(T2, differences)])[1]
    assert found.verdict.startswith("extended once, to 20 seeds (s = 1.58 points): 10 pairs are missing")
    found = outcomes([*rows, *run_rows(T2, differences * 2)])[1]
    assert len(found.pairs) == 20
    assert found.differences == differences * 2


def test_more_seeds_than_planned_do_not_count_if_the_spread_is_small() -> None:
    found = outcomes([*search_rows(T2), *run_rows(T2, [-0.5, 0.5] * 10)])[1]
    assert len(found.pairs) == 10


def test_diverged_run_counts_as_the_error_of_guessing() -> None:
    rows = [*search_rows(T2), *run_rows(T2, [-2.0] * 20)]
    rows[-1] |= {"status": "diverged", "test_error_pct": ""}
    # All differences of the first ten are equal, so the t-test has no p.
    assert outcomes(rows)[1].verdict == OPEN
    rows[-21] |= {"status": "diverged", "test_error_pct": "12"}  # SAM at seed 109
    found = outcomes(rows)[1]
    assert (found.differences[9], found.differences[19], len(found.pairs)) == (55.0, 55.0, 20)


def test_search_takes_the_lowest_error_and_in_a_tie_the_value_of_the_paper() -> None:
    chosen = choose(search_rows(T3), T3)
    assert chosen is not None
    assert (chosen.sgd.searched, chosen.sam.searched) == (0.1, 0.4)
    assert chosen.best_sgd == chosen.sgd
    tied = [
        {**one, "test_error_pct": "44.04"} if one["optimizer.rho"] == "0.1" else one
        for one in search_rows(T3)
    ]
    tied = [
        {**one, "test_error_pct": "44.0"} if one["optimizer.rho"] in ("0.2", "0.4") else one for one in tied
    ]
    chosen = choose(tied, T3)
    assert chosen is not None and chosen.sam.searched == 0.1
    apart = [{**one, "test_error_pct": "44.05"} if one["optimizer.rho"] == "0.1" else one for one in tied]
    chosen = choose(apart, T3)
    assert chosen is not None and chosen.sam.searched == 0.2


@pytest.mark.parametrize(("error_of_twice", "epochs", "lr"), [(43.9, 40, 0.2), (43.96, 20, 0.1)])
def test_sgd_has_the_length_that_is_better_on_held_out_images(
    error_of_twice: float, epochs: int, lr: float
) -> None:
    chosen = choose(search_rows(T1, twice=error_of_twice), T1)
    assert chosen is not None
    assert (chosen.best_sgd.epochs, chosen.best_sgd.searched) == (epochs, lr)
    assert (chosen.sgd.epochs, chosen.sgd.searched) == (20, 0.1)


def test_diverged_search_run_counts_as_an_error_of_100() -> None:
    rows = search_rows(T1)
    rows = [
        {**one, "status": "diverged", "test_error_pct": ""} if one["optimizer.rho"] == "0.2" else one
        for one in rows
    ]
    chosen = choose(rows, T1)
    assert chosen is not None and chosen.sam.searched == 0.1


def test_two_runs_of_one_seed_are_refused() -> None:
    rows = [*search_rows(T1), {**row(T1, "sgd", 0.1, 50, 44.0), "identity": "other"}]
    with pytest.raises(ValueError, match="seed 50 has two runs of one condition"):
        choose(rows, T1)


@pytest.mark.parametrize("spread", [0.3, 1.2, 3.0])
def test_every_mean_has_a_verdict_with_the_seeds_that_decide(spread: float) -> None:
    num_seeds = seeds_to_decide(spread)
    scatter = np.resize([1.0, -1.0], num_seeds // 2 * 2)
    scatter = np.append(scatter, np.zeros(num_seeds % 2))
    scatter *= spread / np.std(scatter, ddof=1)
    for mean in np.linspace(0, 3, 301):
        differences = list(scatter - mean)
        p = 4 * stats.ttest_1samp(differences, 0).pvalue
        assert verdict(differences, (p, p), 1.0) != OPEN
    assert paired_t_p(differences) == pytest.approx(p / 4)


def test_seeds_to_decide_are_not_more_than_needed() -> None:
    assert seeds_to_decide(0.0) == 10
    num_seeds = seeds_to_decide(1.2)
    half_widths = [
        sum(stats.t.ppf([0.99, 1 - 0.0025 / 2], n - 1)) * 1.2 / math.sqrt(n)
        for n in (num_seeds - 1, num_seeds)
    ]
    assert half_widths[0] > 1 >= half_widths[1]


def test_chance_alone_passes_any_of_four_tests_at_most_once_in_a_hundred() -> None:
    generator = np.random.default_rng(0)
    num_campaigns = 1000
    passed = 0
    for campaign in generator.normal(0, 1, (num_campaigns, 4, 10)):
        t = holm([paired_t_p(list(test)) or 1.0 for test in campaign])
        flips = holm([sign_flip_p(list(test)) or 1.0 for test in campaign])
        passed += any(max(pair) < 0.01 for pair in zip(t, flips, strict=True))
    # 1 % of 1000 is 10; three standard errors are 9.4.
    assert passed <= 19


def test_effect_of_twice_the_spread_passes_with_ten_seeds() -> None:
    differences = list(np.random.default_rng(1).normal(-2, 1, 10))
    t, flip = paired_t_p(differences), sign_flip_p(differences)
    assert t is not None and flip is not None
    assert verdict(differences, (4 * t, 4 * flip), 1.0) == HOLDS
