"""Conditions that differ in their method and length alone, beside SGD that makes as many passes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sam.record.values import DEFAULTS
from sam.report.families import families
from sam.report.groups import Group
from sam.report.interval import Estimate, estimate, paired_difference

# Largest share by which numbers of passes differ that count as equal.
TOLERANCE = 0.02


@dataclass(frozen=True)
class ComputeRow:
    """One condition.

    Attributes:
        group: The runs.
        passes_per_image: Forward-backward passes that a training image went through, on the average.
        test_error_pct: Error on the split after the last epoch.
        seconds: Time per run.
        partner: The SGD runs of as many passes; None for SGD itself and where there are none.
        difference_points: Error minus the partner's, over the seeds that both have.
        missing_epochs: Epochs of the SGD run that would be the partner; None where there is one.
    """

    group: Group
    passes_per_image: float
    test_error_pct: Estimate | None
    seconds: Estimate | None
    partner: Group | None
    difference_points: Estimate | None
    missing_epochs: int | None

    @property
    def epochs(self) -> int:
        """Length of training."""
        return int(self.group.config["epochs"])


@dataclass(frozen=True)
class ComputeFamily:
    """Conditions that agree in everything but method and epochs.

    Attributes:
        title: What tells it from every other family shown.
        split: What the error was measured on: "test" or "validation".
        rows: By passes, SGD first among equals.
    """

    title: str
    split: str
    rows: list[ComputeRow]


def build_compute_families(groups: Sequence[Group]) -> list[ComputeFamily]:
    """Lay out what can be compared at equal compute.

    A family is shown where it has SGD, and something that spends more than one pass per image and epoch. On
    held-out images, which are for choosing rho, there must also be an SGD run of as many passes.

    Args:
        groups: Conditions; those without a complete run are passed over.

    Returns:
        The families in the order in which the groups first name them.
    """
    counted = [group for group in groups if _passes_per_epoch(group) is not None]
    found = [
        ComputeFamily(family.title, family.setting.split, _rows(family.groups))
        for family in families(counted, ["epochs"])
    ]
    return [family for family in found if _is_shown(family)]


def _passes_per_epoch(group: Group) -> float | None:
    """Return the mean passes over a batch per update, times the walks over the images in an epoch."""
    passes, steps = group.values("forward_backward_passes"), group.values("steps")
    ratios = [passes[seed] / steps[seed] for seed in passes if steps.get(seed)]
    return sum(ratios) / len(ratios) * _num_repeats(group) if ratios else None


def _rows(groups: Sequence[Group]) -> list[ComputeRow]:
    passes = {group.key: _passes(group) for group in groups}
    num_baselines = Counter(group.setting.key for group in groups if _is_sgd(group))
    # Two SGD conditions in one setting differ in something unknown: neither is the one to beat.
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
    return ComputeRow(
        group=group,
        passes_per_image=passes,
        test_error_pct=estimate(list(errors.values())),
        seconds=estimate(list(group.values("seconds").values())),
        partner=partner,
        difference_points=paired_difference(errors, partner.values("test_error_pct")) if partner else None,
        missing_epochs=None if partner or _is_sgd(group) else round(passes / _num_repeats(group)),
    )


def _passes(group: Group) -> float:
    per_epoch = _passes_per_epoch(group)
    assert per_epoch is not None, "groups without the number are passed over"
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
