"""How well a measure of trained networks, such as m-sharpness, predicts their generalisation.

Follows Jiang et al. (2020), "Fantastic generalization measures and where to find them", section 2.2.3, and
the score of the competition "Predicting generalization in deep learning" (PGDL, 2020). For two runs i and j,
V_mu = sign(mu_i - mu_j) compares their measures and V_g = sign(g_i - g_j) their generalisation gaps. U_S is
the values in i and j of the hyperparameters in a set S. Over all ordered pairs of different runs

    I(V_mu; V_g | U_S) = sum_u p(u) sum_{v, w} p(v, w | u) log2( p(v, w | u) / (p(v | u) p(w | u)) )
    H(V_g | U_S) = - sum_u p(u) sum_w p(w | u) log2 p(w | u)
    score = min over |S| <= 2 of I(V_mu; V_g | U_S) / H(V_g | U_S)

The score is 1 if the measure ranks the runs like the gap (or exactly the opposite way), and 0 if it has no
information. A monotone transformation of the measure does not change the score. Departures from PGDL: a tie
is a third sign, while PGDL counts it as one of the other two; runs are not paired with themselves; sets of
zero and one hyperparameters count too; u is weighted by its number of pairs, which is constant on the
complete grids of PGDL.

The estimate uses relative frequencies for p. Few pairs per u bias it upwards, so compare it with
`chance_level`.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_CONDITIONS = 2

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """The information of a measure about the order of the gaps.

    Attributes:
        value: Share of the entropy of the order that the measure removes, minimum over all sets; 0 to 1.
        conditions: The set of hyperparameters with the minimum.
        unconditioned: The share for the empty set.
    """

    value: float
    conditions: tuple[str, ...]
    unconditioned: float


class Chance(NamedTuple):
    """95 % quantiles of the scores of shuffled measures, which have no information; fields as in `Score`."""

    value: float
    unconditioned: float


class Correlation(NamedTuple):
    """Kendall's tau-b with its 95 % interval; None if resampling gives no interval."""

    tau: float
    interval: tuple[float, float] | None


def mutual_information(
    measures: Sequence[float], gaps: Sequence[float], conditions: Sequence[Sequence[Hashable]] = ()
) -> tuple[float, float]:
    """Return I(V_mu; V_g | U_S) and H(V_g | U_S) in bits, over the ordered pairs of different runs.

    Args:
        measures: mu of each run.
        gaps: g of each run.
        conditions: For each hyperparameter in S, the value of each run.

    Raises:
        ValueError: If the lengths differ, there are fewer than two runs, or a number is not finite.
    """
    mu, gap = _checked(measures, gaps)
    return _information(mu, gap, _cells(len(mu), conditions))


def conditional_score(
    measures: Sequence[float], gaps: Sequence[float], hyperparameters: Mapping[str, Sequence[Hashable]]
) -> Score | None:
    """Return the smallest share of entropy that a measure removes, over sets of up to two hyperparameters.

    Sets without entropy are skipped.

    Args:
        measures: mu of each run.
        gaps: g of each run.
        hyperparameters: For each hyperparameter, the value of each run.

    Returns:
        The score; None if all gaps are equal.

    Raises:
        ValueError: As for `mutual_information`.
    """
    mu, gap = _checked(measures, gaps)
    return _score(mu, gap, _all_cells(len(mu), hyperparameters))


def chance_level(
    measures: Sequence[float],
    gaps: Sequence[float],
    hyperparameters: Mapping[str, Sequence[Hashable]],
    clusters: Sequence[Hashable],
    num_shuffles: int = 200,
    seed: int = 0,
) -> Chance | None:
    """Return the 95 % quantiles of the scores of shuffled measures, which have no information.

    The measures of a condition are moved together, because its seeds are not independent runs. If conditions
    have different numbers of runs, a smaller condition gets only the first measures of the other one, and a
    larger condition gets some of them twice. With few conditions there are few orders, and the quantiles are
    high.

    Args:
        measures: mu of each run.
        gaps: g of each run.
        hyperparameters: For each hyperparameter, the value of each run.
        clusters: The condition of each run.
        num_shuffles: Number of shuffles; at least 1.
        seed: Seed of the shuffles.

    Returns:
        The quantiles; None if all gaps are equal.

    Raises:
        ValueError: As for `mutual_information`.
    """
    mu, gap = _checked(measures, gaps)
    cells = _all_cells(len(mu), hyperparameters)
    random = np.random.default_rng(seed)
    codes = _codes(clusters)
    blocks = [np.flatnonzero(codes == code) for code in range(int(codes.max()) + 1)]
    known = []
    for _ in range(num_shuffles):
        shuffled = np.empty_like(mu)
        for block, place in zip(blocks, random.permutation(len(blocks)), strict=True):
            shuffled[block] = np.resize(mu[blocks[place]], len(block))
        if (score := _score(shuffled, gap, cells)) is not None:
            known.append((score.value, score.unconditioned))
    return Chance(*map(float, np.quantile(known, 0.95, axis=0))) if known else None


def rank_correlation(
    measures: Sequence[float],
    gaps: Sequence[float],
    clusters: Sequence[Hashable],
    num_resamples: int = 1000,
    seed: int = 0,
) -> Correlation | None:
    """Return Kendall's tau-b between measures and gaps, with a 95 % percentile bootstrap interval.

    Whole conditions are drawn with replacement, because the seeds of a condition are not independent runs. A
    run is not paired with its own copies. With fewer than about ten conditions, the interval is too narrow.

    Args:
        measures: mu of each run.
        gaps: g of each run.
        clusters: The condition of each run.
        num_resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        The correlation; its interval is None for a single condition. None if all measures or all gaps are
        equal.

    Raises:
        ValueError: As for `mutual_information`.
    """
    mu, gap = _checked(measures, gaps)
    signs = _signs(mu), _signs(gap)
    tau = _tau(*signs, np.ones(len(mu)))
    if tau is None:
        return None
    codes = _codes(clusters)
    count = int(codes.max()) + 1
    random = np.random.default_rng(seed)
    draws = (np.bincount(random.integers(count, size=count), minlength=count) for _ in range(num_resamples))
    taus = [drawn for draw in draws if (drawn := _tau(*signs, draw[codes].astype(float))) is not None]
    if count < 2 or not taus:
        return Correlation(tau, None)
    low, high = np.quantile(taus, [0.025, 0.975])
    return Correlation(tau, (float(low), float(high)))


def _checked(measures: Sequence[float], gaps: Sequence[float]) -> tuple[Array, Array]:
    mu, gap = np.asarray(measures, dtype=np.float64), np.asarray(gaps, dtype=np.float64)
    if mu.ndim != 1 or mu.shape != gap.shape or len(mu) < 2:
        raise ValueError(f"measures {mu.shape} and gaps {gap.shape} must have one number for each of 2+ runs")
    if not (np.isfinite(mu).all() and np.isfinite(gap).all()):
        raise ValueError("measures and gaps must be finite; leave out runs without finite numbers")
    return mu, gap


def _codes(values: Sequence[Hashable]) -> Codes:
    """Number values by first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _pairs(count: int) -> NDArray[np.bool_]:
    return ~np.eye(count, dtype=bool)


def _signs(values: Array) -> Codes:
    """Return sign(x_i - x_j), int [N, N]."""
    return (values[:, None] > values).astype(np.int64) - (values[:, None] < values)


def _cells(count: int, conditions: Sequence[Sequence[Hashable]]) -> Codes:
    """Return the cell number of each ordered pair of runs; pairs with equal hyperparameters share a cell."""
    cells = np.zeros((count, count), dtype=np.int64)
    for values in conditions:
        if len(values) != count:
            raise ValueError(f"a hyperparameter has {len(values)} values for {count} runs")
        codes = _codes(values)
        base = int(codes.max()) + 1
        cells = (cells * base + codes[:, None]) * base + codes
    return np.unique(cells[_pairs(count)], return_inverse=True)[1].astype(np.int64)


def _all_cells(count: int, hyperparameters: Mapping[str, Sequence[Hashable]]) -> dict[tuple[str, ...], Codes]:
    sets = [names for size in range(MAX_CONDITIONS + 1) for names in combinations(hyperparameters, size)]
    return {names: _cells(count, [hyperparameters[name] for name in names]) for names in sets}


def _information(mu: Array, gap: Array, cells: Codes) -> tuple[float, float]:
    pairs = _pairs(len(mu))
    index = (cells * 3 + _signs(mu)[pairs] + 1) * 3 + _signs(gap)[pairs] + 1
    joint = np.bincount(index, minlength=9 * (int(cells.max()) + 1)).reshape(-1, 3, 3) / len(cells)
    of_cell = _entropy(joint.sum((1, 2)))
    of_gap = _entropy(joint.sum(1)) - of_cell
    # I(V; W | U) = H(V, U) + H(W, U) - H(V, W, U) - H(U); rounding errors may make it slightly negative.
    shared = _entropy(joint.sum(2)) + of_gap - _entropy(joint)
    return max(0.0, shared), max(0.0, of_gap)


def _entropy(probabilities: Array) -> float:
    positive = probabilities[probabilities > 0]
    return -float(positive @ np.log2(positive))


def _score(mu: Array, gap: Array, all_cells: Mapping[tuple[str, ...], Codes]) -> Score | None:
    shares = {}
    for names, cells in all_cells.items():
        shared, entropy = _information(mu, gap, cells)
        if entropy > 1e-9:
            shares[names] = min(1.0, shared / entropy)
    if () not in shares:
        return None
    least = min(shares, key=lambda names: shares[names])
    return Score(shares[least], least, shares[()])


def _tau(mu_signs: Codes, gap_signs: Codes, weights: Array) -> float | None:
    """Return tau-b of runs that are repeated `weights` times; the sign of a run and its copy is 0."""
    pairs = np.outer(weights, weights)
    concordance = float((pairs * mu_signs * gap_signs).sum())
    untied = float((pairs * mu_signs**2).sum() * (pairs * gap_signs**2).sum())
    return concordance / untied**0.5 if untied > 0 else None
