"""The comparison of SGD and SAM as data: one table per setting, one row per condition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sam.paper.cells import Match
from sam.report.families import families, sgd_of
from sam.report.groups import Group
from sam.report.interval import Estimate, estimate
from sam.report.paired import Difference, compare
from sam.report.settings import Setting


@dataclass(frozen=True)
class SettingRow:
    """One condition; an estimate is None if no run has the number.

    Attributes:
        group: The runs.
        test_error_pct: Top-1 error on the setting's split after the last epoch.
        test_top5_error_pct: Top-5 error on that split.
        train_error_pct: Top-1 error on the training images after the last epoch, by the labels trained on.
        train_clean_error_pct: The same by the true labels, if the labels trained on differ from them.
        seconds: Time per run.
        difference: Test error minus that of SGD, in points; None for SGD itself, or if there is no SGD.
        paper: The closest cell of the paper; None if there is none.
    """

    group: Group
    test_error_pct: Estimate | None
    test_top5_error_pct: Estimate | None
    train_error_pct: Estimate | None
    train_clean_error_pct: Estimate | None
    seconds: Estimate | None
    difference: Difference | None
    paper: Match | None


@dataclass(frozen=True)
class SettingTable:
    """One setting.

    Attributes:
        title: A title that no other setting has.
        setting: The keys that all rows share.
        rows: SGD first, then SAM by rho.
    """

    title: str
    setting: Setting
    rows: list[SettingRow]


def build_setting_tables(
    groups: Sequence[Group], matches: Mapping[tuple[str, str], Sequence[Match]]
) -> list[SettingTable]:
    """Return one table for each setting.

    Args:
        groups: Conditions, in the order of the rows.
        matches: The cells of the paper that each condition repeats, the closest first, by `Group.key`.

    Returns:
        The tables, in the order of their first conditions.
    """
    tables = []
    for family in families(groups):
        baseline = sgd_of(family.groups)
        rows = [_make_row(group, baseline, matches.get(group.key, ())) for group in family.groups]
        tables.append(SettingTable(family.title, family.setting, rows))
    return tables


def _make_row(group: Group, baseline: Group | None, matches: Sequence[Match]) -> SettingRow:
    test_errors = group.values("test_error_pct")
    difference = None
    if baseline is not None and group is not baseline:
        same_data = not group.setting.draws_data_per_seed
        difference = compare(test_errors, baseline.values("test_error_pct"), same_data)
    return SettingRow(
        group=group,
        test_error_pct=estimate(list(test_errors.values())),
        test_top5_error_pct=_mean_of(group, "test_top5_error_pct"),
        train_error_pct=_mean_of(group, "train_error_pct"),
        train_clean_error_pct=_mean_of(group, "train_clean_error_pct"),
        seconds=_mean_of(group, "seconds"),
        difference=difference,
        paper=matches[0] if matches else None,
    )


def _mean_of(group: Group, name: str) -> Estimate | None:
    return estimate(list(group.values(name).values()))
