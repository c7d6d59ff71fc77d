"""Sweeps over rho: the validation error and the test error of each rho, and the rho that is selected."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sam.report.families import families
from sam.report.groups import Group
from sam.report.interval import Estimate, estimate


@dataclass(frozen=True)
class RhoRow:
    """One value of rho.

    Attributes:
        rho: SAM's radius.
        validation: The runs that held out training images; None if there are none.
        test: The runs that trained on all training images; None if there are none.
    """

    rho: float
    validation: Group | None
    test: Group | None

    @property
    def validation_error_pct(self) -> Estimate | None:
        """Error on the held-out images; None if no run is complete."""
        return _error(self.validation)

    @property
    def test_error_pct(self) -> Estimate | None:
        """Error on the test images; None if no run is complete."""
        return _error(self.test)


@dataclass(frozen=True)
class RhoSweep:
    """One method in one setting, for several values of rho.

    Attributes:
        title: A title that no other setting has.
        method: Name of the method, without rho.
        validation: How images are held out: "last" or "random"; "none" if no run holds images out.
        rows: Sorted by rho.
        selected: The row with the lowest mean error; in a tie, the one with the smaller rho.
        split: The split of that error: "validation", or "test", which makes the error optimistic.
    """

    title: str
    method: str
    validation: str
    rows: list[RhoRow]
    selected: RhoRow
    split: str


def build_rho_sweeps(groups: Sequence[Group]) -> list[RhoSweep]:
    """Find all sweeps: conditions with the same method and setting, apart from rho and held-out images.

    Runs that hold out the last tenth and runs that hold out a random tenth make two sweeps. Both sweeps show
    the same test errors.

    Args:
        groups: Conditions; only those of SAM are used.

    Returns:
        The sweeps with at least two values of rho, in the order of their first conditions.
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
