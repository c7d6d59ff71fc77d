"""The results of the plan's four tests as a Markdown table, with what the search chose."""

import math
import statistics
from collections.abc import Sequence

from sam.report.claims import LEVEL, OPEN, Outcome, seeds_to_decide
from sam.report.interval import estimate
from sam.report.markup import NOTHING, render_list, render_table
from sam.report.plan_runs import PlanCondition

HEADER = [
    "Test",
    "Claim",
    "SGD",
    "SAM",
    f"Difference, {100 * LEVEL:.0f} % interval",
    "n",
    "p after Holm: t / sign-flip",
    "Verdict",
]
NOTE = """\
Errors are in percent, on all 10,000 test images. SGD has the length that is better on held-out images.
T4 compares the largest eigenvalues of the Hessian (geometric means and their ratio) at equal epochs."""


def render_outcomes(outcomes: Sequence[Outcome]) -> str:
    """Write the table of the tests, then one line about the search of each block.

    Args:
        outcomes: The results of the tests.
    """
    chosen = [_choice(outcome) for outcome in outcomes if outcome.choice is not None]
    rows = [_cells(outcome) for outcome in outcomes]
    return "\n\n".join(filter(None, [render_table(HEADER, rows), NOTE, render_list(chosen)])) + "\n"


def _cells(outcome: Outcome) -> list[str]:
    name, text = outcome.claim.name, outcome.claim.text
    if not outcome.pairs:
        return [name, text, *[NOTHING] * 5, outcome.verdict]
    means = [statistics.fmean(values) for values in zip(*outcome.pairs.values(), strict=True)]
    shown = [f"{math.exp(mean):.3g}" if outcome.claim.of_flatness else f"{mean:.2f}" for mean in means]
    p_values = " / ".join(f"{p:.2g}" for p in outcome.p_values)
    return [name, text, *shown, _difference(outcome), str(len(outcome.pairs)), p_values, _verdict(outcome)]


def _difference(outcome: Outcome) -> str:
    found = estimate(outcome.differences, LEVEL)
    assert found is not None and found.half_width is not None, "a test has at least two pairs"
    if not outcome.claim.of_flatness:
        return f"{found.mean:+.2f} ± {found.half_width:.2f}"
    ends = [math.exp(found.mean + sign * found.half_width) for sign in (-1, 1)]
    return f"ratio {math.exp(found.mean):.3g} ({ends[0]:.3g} to {ends[1]:.3g})"


def _verdict(outcome: Outcome) -> str:
    if outcome.verdict != OPEN or outcome.claim.of_flatness:
        return outcome.verdict
    spread = statistics.stdev(outcome.differences)
    return f"{OPEN}; {seeds_to_decide(spread)} seeds would decide (s = {spread:.2f})"


def _choice(outcome: Outcome) -> str:
    assert outcome.choice is not None and outcome.baseline is not None, "the caller leaves the others out"
    sam = outcome.choice.sam
    return f"{outcome.claim.name}: {_describe(outcome.baseline)} against SAM with rho {sam.searched:g}"


def _describe(sgd: PlanCondition) -> str:
    return f"SGD of {sgd.epochs} epochs with learning rate {sgd.searched:g}"
