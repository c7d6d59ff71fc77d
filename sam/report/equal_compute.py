"""Compares conditions with SGD at the same number of forward-backward passes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sam.record.values import DEFAULTS
from sam.report.families import families
from sam.report.groups import Group
from sam.report.interval import Estimate, estimate
from sam.report.paired import Difference, compare

# Numbers of passes count as equal up to this relative difference.
TOLERANCE = 0.02


@dataclass(frozen=True)
class ComputeRow:
    """One condition.

    Attributes:
        group: The runs.
        passes_per_image: Mean number of forward-backward passes per training image in a run.
        test_error_pct: Error on the split after the last epoch.
        seconds: Time per run.
        partner: The SGD runs with the same number of passes; None for SGD itself, or if there are none.
        difference: Error minus the partner's error, in points; None if there is no partner.
        missing_epochs: Number of epochs that a partner would need; None if there is a partner.
    """

    group: Group
    passes_per_image: float
    test_error_pct: Estimate | None
    seconds: Estimate | None
    partner: Group | None
    difference: Difference | None
    missing_epochs: int | None

    @property
    def epochs(self) -> int:
        """Number of training epochs."""
        return int(self.group.config["epochs"])


@dataclass(frozen=True)
class ComputeFamily:
    """Conditions that differ only in method and epochs.

    Attributes:
        title: A title that no other family has.
        split: The split of the error: "test" or "validation".
        rows: Sorted by passes; for equal passes, SGD is first.
    """

    title: str
    split: str
    rows: list[ComputeRow]


def build_compute_families(groups: Sequence[Group]) -> list[ComputeFamily]:
    """Return the families of conditions that can be compared at equal compute.

    A family is shown if it has SGD and a condition with more than one pass per image and epoch. Errors on
    held-out images serve to choose rho, so there the family must also have a pair with equal passes.

    Args:
        groups: Conditions; those without a complete run are skipped.

    Returns:
        The families, in the order of their first conditions.
    """
    counted = [group for group in groups if _passes_per_epoch(group) is not None]
    found = [
        ComputeFamily(family.title, family.setting.split, _rows(family.groups))
        for family in families(counted, ["epochs"])
    ]
    return [family for family in found if _is_shown(family)]


def _passes_per_epoch(group: Group) -> float | None:
    """Return the mean number of passes per update, times dataset.repeats."""
    passes, steps = group.values("forward_backward_passes"), group.values("steps")
    ratios = [passes[seed] / steps[seed] for seed in passes if steps.get(seed)]
    return sum(ratios) / len(ratios) * _num_repeats(group) if ratios else None


def _rows(groups: Sequence[Group]) -> list[ComputeRow]:
    passes = {group.key: _passes(group) for group in groups}
    num_baselines = Counter(group.setting.key for group in groups if _is_sgd(group))
    # Two SGD conditions in one setting differ in something unknown, so neither can be the baseline.
    baselines = [group for group in groups if _is_sgd(group) and num_baselines[group.setting.key] == 1]
    rows = []
    for group in groups:
        own = passes[group.key]
        near = [base for base in baselines if abs(passes[base.key] - own) <= TOLERANCE * own]
        partner = min(near, key=lambda base: abs(passes[base.key] - own), default=None)
        rows.append(_make_row(group, own, None if _is_sgd(group) else partner))
    return sorted(rows, key=lambda row: (round(row.passes_per_image, 1), not _is_sgd(row.group)))


def _make_row(group: Group, passes: float, partner: Group | None) -> ComputeRow:
    errors = group.values("test_error_pct")
    same_data = not group.setting.draws_data_per_seed
    return ComputeRow(
        group=group,
        passes_per_image=passes,
        test_error_pct=estimate(list(errors.values())),
        seconds=estimate(list(group.values("seconds").values())),
        partner=partner,
        difference=compare(errors, partner.values("test_error_pct"), same_data) if partner else None,
        missing_epochs=None if partner or _is_sgd(group) else round(passes / _num_repeats(group)),
    )


def _passes(group: Group) -> float:
    per_epoch = _passes_per_epoch(group)
    assert per_epoch is not None, "groups without the number are filtered out before"
    return per_epoch * int(group.config["epochs"])


def _num_repeats(group: Group) -> int:
    return int(group.config["dataset"].get("repeats", DEFAULTS["dataset.repeats"]))


def _is_sgd(group: Group) -> bool:
    return bool(group.config["optimizer"]["name"] == "sgd")


def _is_shown(family: ComputeFamily) -> bool:
    has_sgd = any(_is_sgd(row.group) for row in family.rows)
    costs_more = any(
        row.passes_per_image > (1 + TOLERANCE) * row.epochs * _num_repeats(row.group) for row in family.rows
    )
    has_pair = any(row.partner for row in family.rows)
    return has_sgd and costs_more and (has_pair or family.split == "test")
