"""Sweeps over rho: the error on held-out training images beside the test error, and the rho they select."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sam.report.families import families
from sam.report.groups import Group
from sam.report.interval import Estimate, estimate


@dataclass(frozen=True)
class RhoRow:
    """One rho.

    Attributes:
        rho: SAM's radius.
        validation: The runs that held out training images; None where there are none.
        test: The runs that trained on all; None where there are none.
    """

    rho: float
    validation: Group | None
    test: Group | None

    @property
    def validation_error_pct(self) -> Estimate | None:
        """Error on the held-out images; None where no run completed."""
        return _error(self.validation)

    @property
    def test_error_pct(self) -> Estimate | None:
        """Error on the test images; None where no run completed."""
        return _error(self.test)


@dataclass(frozen=True)
class RhoSweep:
    """One method in one setting, for several rho.

    Attributes:
        title: What tells its setting from every other one shown.
        method: Name of the method, without rho.
        validation: How images are held out: "last" or "random"; "none" where no run does.
        rows: By rho.
        selected: The row of lowest mean error, the smaller rho winning a tie.
        split: What that error was measured on: "validation", or "test", which makes it optimistic.
    """

    title: str
    method: str
    validation: str
    rows: list[RhoRow]
    selected: RhoRow
    split: str


def build_rho_sweeps(groups: Sequence[Group]) -> list[RhoSweep]:
    """Find every sweep: the same method and setting, but for rho and for what is held out.

    Runs that hold out the last tenth and runs that hold out a random one make two sweeps, which share their
    test errors.

    Args:
        groups: Conditions; those of SAM count.

    Returns:
        The sweeps in the order in which the groups first name them; only those with two rhos to choose from.
    """
    sweeps = []
    with_rho = [group for group in groups if group.rho is not None]
    for title, _, found in families(with_rho, ["dataset.validation"], by_method=True):
        tested = [group for group in found if _held_out(group) == "none"]
        for validation in sorted({_held_out(group) for group in found} - {"none"}) or ["none"]:
            validated = [group for group in found if _held_out(group) == validation]
            rows = _rows(validated if validation != "none" else [], tested)
            sweeps.append(_make_sweep(title, found[0].method, validation, rows))
    return [sweep for sweep in sweeps if sweep is not None]


def _rows(validated: Iterable[Group], tested: Iterable[Group]) -> list[RhoRow]:
    by_label = {group.label: group for group in validated}, {group.label: group for group in tested}
    rhos = {label: group.rho for groups in by_label for label, group in groups.items()}
    rows = [
        RhoRow(rho, *(groups.get(label) for groups in by_label))
        for label, rho in rhos.items()
        if rho is not None
    ]
    return sorted(rows, key=lambda row: row.rho)


def _make_sweep(title: str, method: str, validation: str, rows: list[RhoRow]) -> RhoSweep | None:
    for split in ("validation", "test"):
        errors = [row.validation_error_pct if split == "validation" else row.test_error_pct for row in rows]
        found = [(error.mean, row.rho, row) for error, row in zip(errors, rows, strict=True) if error]
        if len({rho for _, rho, _ in found}) > 1:
            selected = min(found, key=lambda item: item[:2])[2]
            return RhoSweep(title, method, validation, rows, selected, split)
    return None


def _held_out(group: Group) -> str:
    return str(group.setting.fields.get("dataset.validation", "none"))


def _error(group: Group | None) -> Estimate | None:
    return estimate(list(group.values("test_error_pct").values())) if group else None
