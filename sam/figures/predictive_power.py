"""How well a measure of trained networks, such as m-sharpness, predicts how they generalise.

After Jiang et al. (2020), "Fantastic generalization measures and where to find them", section 2.2.3, and the
score of the competition "Predicting generalization in deep learning" (PGDL, 2020). For two runs i and j let
V_mu = sign(mu_i - mu_j) compare their measures, V_g = sign(g_i - g_j) their generalisation gaps, and U_S be
the values that the hyperparameters of a set S have in i and in j. Over all ordered pairs of different runs

    I(V_mu; V_g | U_S) = sum_u p(u) sum_{v, w} p(v, w | u) log2( p(v, w | u) / (p(v | u) p(w | u)) )
    H(V_g | U_S) = - sum_u p(u) sum_w p(w | u) log2 p(w | u)
    score = min over |S| <= 2 of I(V_mu; V_g | U_S) / H(V_g | U_S)

It is 1 where the measure orders runs like the gap does (or always the other way round), 0 where it tells
nothing. Hence no monotone change of the measure matters. Departures: a tie is a third sign, where PGDL counts
it with one of the others; runs are not paired with themselves; sets of no and of one hyperparameter count
too; u is weighted by its number of pairs, which is even on the complete grids of PGDL.

The estimate plugs counts in for p, so few pairs for each u bias it upwards: hold it against `chance_level`.
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
    """How much a measure tells about the order of the gaps.

    Attributes:
        value: Share of the entropy of the order that it removes, the least over all sets; 0 to 1.
        conditions: The set of hyperparameters with the least.
        unconditioned: The share for the empty set.
    """

    value: float
    conditions: tuple[str, ...]
    unconditioned: float


class Chance(NamedTuple):
    """What 95 % of shuffled measures, which know nothing, stay below; fields as in `Score`."""

    value: float
    unconditioned: float


class Correlation(NamedTuple):
    """Kendall's tau-b with its 95 % interval; no interval where resampling gives none."""

    tau: float
    interval: tuple[float, float] | None


def mutual_information(
    measures: Sequence[float], gaps: Sequence[float], conditions: Sequence[Sequence[Hashable]] = ()
) -> tuple[float, float]:
    """Return I(V_mu; V_g | U_S) and H(V_g | U_S) in bits, over the ordered pairs of different runs.

    Args:
        measures: mu of each run.
        gaps: g of each run.
        conditions: For each hyperparameter of S, its value in each run.

    Raises:
        ValueError: If the lengths differ, there are fewer than two runs, or a number is not finite.
    """
    mu, gap = _checked(measures, gaps)
    return _information(mu, gap, _cells(len(mu), conditions))


def conditional_score(
    measures: Sequence[float], gaps: Sequence[float], hyperparameters: Mapping[str, Sequence[Hashable]]
) -> Score | None:
    """Return the least share of the entropy that a measure removes, over sets of at most two hyperparameters.

    Sets that leave no entropy, since no two runs agree in what they leave free, are passed over.

    Args:
        measures: mu of each run.
        gaps: g of each run.
        hyperparameters: The value of each in each run.

    Returns:
        The score; None where all gaps are equal.

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
    """Return the scores that 95 % of shuffled measures, which know nothing, stay below.

    Conditions exchange their measures as wholes, since the seeds of one are no independent runs. Where they
    have unequally many runs, a condition with fewer than the one whose measures it gets takes the first of
    them, and one with more has some of them twice. With few conditions there are few orders, and the level is
    high.

    Args:
        measures: mu of each run.
        gaps: g of each run.
        hyperparameters: The value of each in each run.
        clusters: The condition of each run.
        num_shuffles: How often to shuffle; at least 1.
        seed: Of the shuffles.

    Returns:
        The quantiles; None where all gaps are equal.

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

    Whole conditions are drawn with replacement, since the seeds of one are no independent runs; a run is not
    paired with its own copies. With fewer than about ten conditions the interval is too narrow.

    Args:
        measures: mu of each run.
        gaps: g of each run.
        clusters: The condition of each run.
        num_resamples: Draws of the bootstrap.
        seed: Of the draws.

    Returns:
        The correlation, its interval None for a single condition; None where all measures or all gaps are
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
        raise ValueError("measures and gaps must be finite; leave runs out that have none")
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
    """Number what two runs have for some hyperparameters, for each ordered pair of runs."""
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
    # I(V; W | U) = H(V, U) + H(W, U) - H(V, W, U) - H(U); rounding may leave it a little below 0.
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
    """Return tau-b of runs of which some are there several times; the sign of a run and its copy is 0."""
    pairs = np.outer(weights, weights)
    concordance = float((pairs * mu_signs * gap_signs).sum())
    untied = float((pairs * mu_signs**2).sum() * (pairs * gap_signs**2).sum())
    return concordance / untied**0.5 if untied > 0 else None
