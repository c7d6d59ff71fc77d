"""Tests of sam/figures/predictive_power.py."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from sam.figures.predictive_power import chance_level, conditional_score, mutual_information, rank_correlation

POPULATIONS = st.lists(st.tuples(*[st.integers(-3, 3)] * 2, *[st.integers(0, 2)] * 3), min_size=3, max_size=9)


def _binary_entropy(share: float) -> float:
    return -sum(p * math.log2(p) for p in (share, 1 - share) if p)


def _by_definition(
    mu: Sequence[float], gap: Sequence[float], conditions: Sequence[Sequence[object]]
) -> tuple[float, float]:
    """Return I(V_mu; V_g | U_S) and H(V_g | U_S), computed cell by cell from the formulas."""
    draws = [
        (
            tuple((values[i], values[j]) for values in conditions),
            (mu[i] > mu[j]) - (mu[i] < mu[j]),
            (gap[i] > gap[j]) - (gap[i] < gap[j]),
        )
        for i, j in itertools.permutations(range(len(mu)), 2)
    ]
    information = entropy = 0.0
    for cell, size in Counter(u for u, _, _ in draws).items():
        inside = [(v, w) for u, v, w in draws if u == cell]
        joint, of_mu, of_gap = (
            Counter(inside),
            Counter(v for v, _ in inside),
            Counter(w for _, w in inside),
        )
        for (v, w), count in joint.items():
            p = count / size
            information += size / len(draws) * p * math.log2(p / (of_mu[v] / size * of_gap[w] / size))
        entropy -= (
            size / len(draws) * sum(count / size * math.log2(count / size) for count in of_gap.values())
        )
    return information, entropy


def test_information_of_two_orders_has_a_closed_form() -> None:
    # Without ties both signs are equally frequent. V_mu = V_g for (1 + tau) / 2 of the pairs: here 4 of 6.
    information, entropy = mutual_information([2, 1, 4, 3], [1, 2, 3, 4])
    assert entropy == pytest.approx(1)
    assert information == pytest.approx(1 - _binary_entropy(4 / 6))


def test_information_within_one_hyperparameter_by_hand() -> None:
    # Pairs with equal h (4 of 12) have the opposite order, which is full information; for the other pairs, h
    # decides the order of the gaps.
    information, entropy = mutual_information([2, 1, 4, 3], [1, 2, 3, 4], [["a", "a", "b", "b"]])
    assert (information, entropy) == pytest.approx((1 / 3, 1 / 3))


@given(POPULATIONS)
@settings(deadline=None, max_examples=60)
def test_information_is_that_of_the_definition(rows: list[tuple[int, ...]]) -> None:
    mu, gap, *hyperparameters = zip(*rows, strict=True)
    for size in range(3):
        conditions = hyperparameters[:size]
        found = mutual_information(mu, gap, conditions)
        assert found == pytest.approx(_by_definition(mu, gap, conditions), abs=1e-9)


@given(POPULATIONS)
@settings(deadline=None, max_examples=60)
def test_score_is_the_least_share_over_sets_of_at_most_two(rows: list[tuple[int, ...]]) -> None:
    mu, gap, *columns = zip(*rows, strict=True)
    names = dict(zip("abc", columns, strict=True))
    shares = {}
    for size in range(3):
        for chosen in itertools.combinations("abc", size):
            information, entropy = _by_definition(mu, gap, [names[name] for name in chosen])
            if entropy > 1e-9:
                shares[chosen] = information / entropy
    score = conditional_score(mu, gap, names)
    if () not in shares:
        assert score is None
        return
    assert score is not None
    assert score.value == pytest.approx(min(shares.values()), abs=1e-9)
    assert shares[score.conditions] == pytest.approx(score.value, abs=1e-9)
    assert score.unconditioned == pytest.approx(shares[()], abs=1e-9)


@given(POPULATIONS)
@settings(deadline=None, max_examples=40)
def test_score_ignores_monotone_changes_of_the_measure(rows: list[tuple[int, ...]]) -> None:
    mu, gap, *columns = zip(*rows, strict=True)
    names = dict(zip("abc", columns, strict=True))
    score = conditional_score(mu, gap, names)
    for change in (math.exp, lambda value: value**3 - 5, lambda value: -2 * value):
        changed = conditional_score([change(value) for value in mu], gap, names)
        assert (changed is None) == (score is None)
        if score is not None and changed is not None:
            assert changed.value == pytest.approx(score.value, abs=1e-9)


def test_score_of_perfect_constant_and_confounded_measures() -> None:
    gap = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    names = {"h": list("aabbcc"), "k": list("xyxyxy")}
    perfect = conditional_score(gap, gap, names)
    constant = conditional_score([7.0] * 6, gap, names)
    confounded = conditional_score([1.0, 1.0, 2.0, 2.0, 3.0, 3.0], gap, names)
    assert perfect is not None and constant is not None and confounded is not None
    assert perfect.value == pytest.approx(1)
    assert (constant.value, constant.unconditioned) == (0, 0)
    # The measure depends only on h: it predicts the gap well, but not if h is given.
    assert confounded.unconditioned > 0.5
    assert (confounded.value, confounded.conditions) == (pytest.approx(0), ("h",))


def test_score_of_equal_gaps_is_none() -> None:
    assert conditional_score([1.0, 2.0, 3.0], [4.0] * 3, {}) is None
    assert chance_level([1.0, 2.0, 3.0], [4.0] * 3, {}, "abc") is None


def test_unrelated_measures_exceed_the_chance_level_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    gap = random.normal(size=40).tolist()
    names = {"h": random.integers(2, size=40).tolist()}
    level = chance_level(random.normal(size=40).tolist(), gap, names, range(40))
    scores = [conditional_score(random.normal(size=40).tolist(), gap, names) for _ in range(200)]
    assert level is not None and level.value < 0.1
    # 5 % plus or minus three standard errors.
    assert 0.004 < np.mean([score is not None and score.value > level.value for score in scores]) < 0.1


@pytest.mark.parametrize("sizes", [[3] * 8, [3] * 6 + [1] * 12])
def test_unrelated_measures_of_conditions_exceed_the_chance_level_as_often_as_it_says(
    sizes: list[int],
) -> None:
    random = np.random.default_rng(0)
    codes = np.repeat(np.arange(len(sizes)), sizes)

    def draw() -> list[float]:
        """Return numbers that vary less between the seeds of a condition than between conditions."""
        shared, own = random.normal(size=len(sizes))[codes], random.normal(size=len(codes))
        return (3 * shared + own).tolist()

    exceeded = np.zeros(2)
    for _ in range(60):
        mu, gap = draw(), draw()
        score, level = conditional_score(mu, gap, {}), chance_level(mu, gap, {}, codes.tolist(), 60)
        assert score is not None and level is not None
        exceeded += [score.value > level.value, score.unconditioned > level.unconditioned]
    # 5 % are 3 of 60, plus or minus three standard errors; if runs were shuffled, it would be over a quarter.
    assert exceeded.max() <= 8


def test_chance_level_grows_as_the_population_shrinks() -> None:
    random = np.random.default_rng(2)
    levels: list[float] = []
    for count in (6, 12, 48):
        mu, gap = random.normal(size=(2, count)).tolist()
        names = {"h": [place % 2 for place in range(count)]}
        level = chance_level(mu, gap, names, range(count))
        assert level is not None
        levels.append(level.value)
    assert levels == sorted(levels, reverse=True)


@given(POPULATIONS)
@settings(deadline=None, max_examples=60)
def test_tau_is_that_of_scipy(rows: list[tuple[int, ...]]) -> None:
    mu, gap = (list(map(float, column)) for column in list(zip(*rows, strict=True))[:2])
    found = rank_correlation(mu, gap, range(len(mu)), num_resamples=1)
    if len(set(mu)) == 1 or len(set(gap)) == 1:
        assert found is None
    else:
        assert found is not None
        assert found.tau == pytest.approx(float(kendalltau(mu, gap).statistic), abs=1e-12)


def test_interval_is_that_of_drawn_conditions() -> None:
    random = np.random.default_rng(3)
    mu = random.normal(size=12)
    gap = mu + random.normal(size=12)
    clusters = [place // 2 for place in range(12)]
    found = rank_correlation(mu.tolist(), gap.tolist(), clusters, num_resamples=40, seed=5)
    draws = np.random.default_rng(5)
    taus = []
    for _ in range(40):
        drawn = draws.integers(6, size=6)
        runs = [run for cluster in drawn for run in (2 * cluster, 2 * cluster + 1)]
        pairs = [(i, j) for i in runs for j in runs if i != j]
        # Pairs of a run and its copy are left out, so there are no ties.
        taus.append(np.mean([np.sign(mu[i] - mu[j]) * np.sign(gap[i] - gap[j]) for i, j in pairs]))
    assert found is not None
    assert found.interval == pytest.approx(tuple(np.quantile(taus, [0.025, 0.975])))
    assert found.interval[0] < found.tau < found.interval[1]


def test_perfect_order_has_tau_one_and_no_doubt() -> None:
    found = rank_correlation([1.0, 2.0, 3.0, 5.0], [2.0, 3.0, 8.0, 9.0], "abcd")
    assert found is not None
    assert (found.tau, found.interval) == (pytest.approx(1), pytest.approx((1, 1)))


def test_one_condition_has_no_interval() -> None:
    assert rank_correlation([1.0, 2.0], [1.0, 2.0], "aa") == (pytest.approx(1), None)


@pytest.mark.parametrize(
    ("mu", "gap", "text"),
    [
        ([1.0, 2.0], [1.0], "one number for each"),
        ([1.0], [1.0], "2\\+ runs"),
        ([1.0, math.nan], [1.0, 2.0], "must be finite"),
    ],
)
def test_unusable_numbers_are_named(mu: list[float], gap: list[float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        mutual_information(mu, gap)


def test_hyperparameter_of_another_length_is_named() -> None:
    with pytest.raises(ValueError, match="3 values for 2 runs"):
        mutual_information([1.0, 2.0], [1.0, 2.0], [["a", "b", "c"]])
