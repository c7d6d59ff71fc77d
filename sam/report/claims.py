"""The four primary tests of results/measured/plan.md, and their verdicts. The rules are those of the plan."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy.special import stdtrit

from sam.report.interval import estimate
from sam.report.paired import paired_t_p, sign_flip_p
from sam.report.plan_runs import CONFIRMATORY, SEARCH, SEARCH_SEEDS, PlanCondition, Row, runs_by_seed

ALPHA = 0.01
LEVEL = 0.98  # of the interval that must lie within the margin
MARGIN_POINTS = 1.0
MAX_SPREAD_POINTS = 1.2
FIRST_SEED, EXTENDED = 100, 20
TIE_POINTS = 0.05
LENGTHS = (20, 40)  # epochs of SGD: SAM's epochs, SAM's passes
LEARNING_RATES = (0.05, 0.1, 0.2)
PAPER_LR = 0.1
GUESSING = {"cifar10": 90.0, "cifar100": 99.0}
HOLDS, FAILS, OPEN = "holds here", "does not hold here", "open here"


class Claim(NamedTuple):
    """A claim of the paper with its primary test.

    Attributes:
        name: The name of the test.
        text: The claim.
        dataset: Name of the dataset.
        label_noise: Share of wrong labels.
        rhos: The values of rho that the search tries.
        paper_rho: The paper's rho.
        num_seeds: Number of confirmatory seeds, before an extension.
        of_flatness: Whether the test compares eigenvalues instead of errors.
    """

    name: str
    text: str
    dataset: str
    label_noise: float
    rhos: tuple[float, ...]
    paper_rho: float
    num_seeds: int
    of_flatness: bool = False


CLAIMS = (
    Claim("T1", "lower error on clean labels, CIFAR-10", "cifar10", 0.0, (0.05, 0.1, 0.2), 0.05, 12),
    Claim("T2", "lower error on clean labels, CIFAR-100", "cifar100", 0.0, (0.05, 0.1, 0.2), 0.05, 10),
    Claim("T3", "robust to wrong labels, CIFAR-10, 60 %", "cifar10", 0.6, (0.1, 0.2, 0.4), 0.1, 10),
    Claim("T4", "flatter minima, CIFAR-10", "cifar10", 0.0, (0.05, 0.1, 0.2), 0.05, 12, of_flatness=True),
)


class Choice(NamedTuple):
    """What the search runs of a block choose.

    Attributes:
        sgd: SGD of SAM's length with its best learning rate.
        best_sgd: The same, or SGD of twice the length with its best learning rate, whichever is better.
        sam: SAM with its best rho.
    """

    sgd: PlanCondition
    best_sgd: PlanCondition
    sam: PlanCondition


@dataclass(frozen=True)
class Outcome:
    """The result of one test.

    Attributes:
        claim: The claim.
        choice: What the search chose; None as long as search runs are missing.
        pairs: SGD's and SAM's value for each seed: errors in percent, or logs of eigenvalues; empty as long
            as the test has no result.
        p_values: p of the paired t-test and of the sign-flip test, after Holm's correction.
        verdict: The verdict, or what is missing.
    """

    claim: Claim
    choice: Choice | None
    pairs: Mapping[int, tuple[float, float]]
    p_values: tuple[float, float]
    verdict: str

    @property
    def differences(self) -> list[float]:
        """SAM minus SGD for each seed."""
        return _differences(self.pairs)

    @property
    def baseline(self) -> PlanCondition | None:
        """The SGD condition of the test."""
        return None if self.choice is None else _baseline(self.claim, self.choice)


def outcomes(rows: Sequence[Row]) -> list[Outcome]:
    """Make the four tests.

    Holm's correction counts all four. As long as a test has no result, its p is 1, so the corrected p of the
    others can only fall later. Of a test that is not complete, only the missing runs are shown.

    Args:
        rows: The table of runs.
    """
    choices = [choose(rows, claim) for claim in CLAIMS]
    samples = [_sample(rows, claim, choice) for claim, choice in zip(CLAIMS, choices, strict=True)]
    differences = [[] if missing else _differences(pairs) for pairs, missing in samples]
    t = holm([_or_one(paired_t_p(values)) for values in differences])
    flips = holm([_or_one(sign_flip_p(values)) for values in differences])
    return [
        Outcome(
            claim,
            choice,
            {} if missing else pairs,
            p_values,
            missing or verdict(_differences(pairs), p_values, None if claim.of_flatness else MARGIN_POINTS),
        )
        for claim, choice, (pairs, missing), p_values in zip(
            CLAIMS, choices, samples, zip(t, flips, strict=True), strict=True
        )
    ]


def choose(rows: Sequence[Row], claim: Claim) -> Choice | None:
    """Return what the search of a block chooses, by the mean error on held-out images.

    The lowest mean is taken. If others are less than TIE_POINTS above it, the value nearest to the paper's is
    taken. For SGD's length, this is SAM's number of epochs.

    Args:
        rows: The table of runs.
        claim: A claim of the block.

    Returns:
        The choice; None if a search run is missing.
    """
    block = claim.dataset, claim.label_noise
    (sgd, error), (twice, error_of_twice) = (
        _best(rows, [PlanCondition(*block, "sgd", epochs, lr) for lr in LEARNING_RATES], PAPER_LR)
        for epochs in LENGTHS
    )
    sams = [PlanCondition(*block, "sam", LENGTHS[0], rho) for rho in claim.rhos]
    sam, sam_error = _best(rows, sams, claim.paper_rho)
    if math.inf in (error, error_of_twice, sam_error):
        return None
    return Choice(sgd, sgd if _is_tie(error, error_of_twice) else twice, sam)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values after Holm's correction (Holm 1979), in the order of the tests.

    The i-th smallest of n is multiplied by n - i + 1, and is at least the corrected value before it.

    Args:
        p_values: One p per test.
    """
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def verdict(differences: Sequence[float], p_values: Sequence[float], margin: float | None) -> str:
    """Return the verdict on a claim, by the rule that fits first.

    Args:
        differences: SAM minus SGD for each seed; negative is in favour of the claim.
        p_values: The corrected p values; the test is passed if all are below ALPHA.
        margin: A difference of this size does not matter; None for tests without a margin.
    """
    found = estimate(differences, LEVEL)
    assert found is not None and found.half_width is not None, "a test has at least two pairs"
    passed = max(p_values) < ALPHA
    if passed and found.mean < 0:
        return HOLDS
    if passed or (margin is not None and abs(found.mean) + found.half_width <= margin):
        return FAILS
    return OPEN


def seeds_to_decide(spread: float) -> int:
    """Return the number of seeds with which every test of errors has a verdict, whatever its mean difference.

    With n seeds, "does not hold here" needs a mean at most 1 - a points from zero, where the half-width of
    the 98 % interval is a = t_0.99 * s / sqrt(n). A passed t-test needs a mean at least b points from zero,
    where b = t_0.99875 * s / sqrt(n), from p < 0.01 / 4, the strictest of Holm's thresholds. So there is
    always a verdict if a + b <= 1. With fewer than 10 seeds, the sign-flip test cannot have p < 0.01 / 4.

    Args:
        spread: Standard deviation s of the differences, in points.
    """
    num_seeds = 10
    while True:
        quantiles = stdtrit(num_seeds - 1, [(1 + LEVEL) / 2, 1 - ALPHA / len(CLAIMS) / 2])
        if float(sum(quantiles)) * spread / math.sqrt(num_seeds) <= MARGIN_POINTS:
            return num_seeds
        num_seeds += 1


def _best(
    rows: Sequence[Row], conditions: Sequence[PlanCondition], paper: float
) -> tuple[PlanCondition, float]:
    """Return the condition that the search chooses, with its mean error; infinity if a run is missing."""
    means = {condition: _held_out_error(rows, condition) for condition in conditions}
    if math.inf in means.values():
        return conditions[0], math.inf
    near = [one for one in conditions if _is_tie(means[one], min(means.values()))]
    chosen = min(near, key=lambda one: (abs(one.searched - paper), means[one]))
    return chosen, means[chosen]


def _is_tie(error: float, other: float) -> bool:
    """Return whether the first error is lower, or less than TIE_POINTS higher."""
    return round(error - other, 6) < TIE_POINTS  # means of two errors are multiples of 0.005


def _held_out_error(rows: Sequence[Row], condition: PlanCondition) -> float:
    runs = runs_by_seed(rows, condition, SEARCH)
    if not set(SEARCH_SEEDS) <= runs.keys():
        return math.inf
    return statistics.fmean(_error(runs[seed], 100.0) for seed in SEARCH_SEEDS)


def _sample(
    rows: Sequence[Row], claim: Claim, choice: Choice | None
) -> tuple[dict[int, tuple[float, float]], str]:
    """Return the pairs of a test by seed, and what is missing; "" if nothing is."""
    if choice is None:
        return {}, "not run yet: the search is missing"
    errors = [_errors(rows, claim, one) for one in (choice.best_sgd, choice.sam)]
    seeds = range(FIRST_SEED, FIRST_SEED + claim.num_seeds)
    if lone := _without_pair(seeds, errors):
        return {}, f"not run yet: {lone} of {claim.num_seeds} pairs are missing"
    spread = statistics.stdev(errors[1][seed] - errors[0][seed] for seed in seeds)
    if spread > MAX_SPREAD_POINTS:
        seeds = range(FIRST_SEED, FIRST_SEED + EXTENDED)
        if lone := _without_pair(seeds, errors):
            return (
                {},
                f"extended once, to {EXTENDED} seeds (s = {spread:.2f} points): {lone} pairs are missing",
            )
    values = errors
    if claim.of_flatness:
        values = [_log_eigenvalues(rows, one) for one in (choice.sgd, choice.sam)]
        if lone := _without_pair(seeds, values):
            return {}, f"not run yet: {lone} of {len(seeds)} pairs of Hessians are missing"
    return {seed: (values[0][seed], values[1][seed]) for seed in seeds}, ""


def _without_pair(seeds: Sequence[int], values: Sequence[Mapping[int, float]]) -> int:
    return sum(any(seed not in one for one in values) for seed in seeds)


def _errors(rows: Sequence[Row], claim: Claim, condition: PlanCondition) -> dict[int, float]:
    runs = runs_by_seed(rows, condition, CONFIRMATORY)
    return {seed: _error(row, GUESSING[claim.dataset]) for seed, row in runs.items()}


def _log_eigenvalues(rows: Sequence[Row], condition: PlanCondition) -> dict[int, float]:
    runs = runs_by_seed(rows, condition, CONFIRMATORY)
    return {seed: math.log(float(row["lambda_max"])) for seed, row in runs.items() if row["lambda_max"]}


def _error(row: Row, if_diverged: float) -> float:
    return if_diverged if row["status"] == "diverged" else float(row["test_error_pct"])


def _baseline(claim: Claim, choice: Choice) -> PlanCondition:
    return choice.sgd if claim.of_flatness else choice.best_sgd


def _differences(pairs: Mapping[int, tuple[float, float]]) -> list[float]:
    return [sam - sgd for sgd, sam in pairs.values()]


def _or_one(p: float | None) -> float:
    return 1.0 if p is None else p
