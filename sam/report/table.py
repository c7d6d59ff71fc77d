"""The comparison as data: one block per setting, one row per condition, SGD beside SAM."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sam.paper.cells import Match
from sam.report.groups import Group
from sam.report.interval import Estimate, estimate, paired_difference
from sam.report.settings import Setting, setting_titles


@dataclass(frozen=True)
class Row:
    """One condition; an estimate is None where no run has the number.

    Attributes:
        group: The runs.
        test_error_pct: Top-1 error on the setting's split after the last epoch.
        test_top5_error_pct: The same with five guesses.
        train_error_pct: Top-1 error on the training images after the last epoch, by the labels trained on.
        train_clean_error_pct: The same by the true labels, where others were trained on.
        seconds: Time per run.
        difference_points: Test error minus that of SGD, over the seeds that both have.
        paper: The closest cell of the paper; None where there is none.
    """

    group: Group
    test_error_pct: Estimate | None
    test_top5_error_pct: Estimate | None
    train_error_pct: Estimate | None
    train_clean_error_pct: Estimate | None
    seconds: Estimate | None
    difference_points: Estimate | None
    paper: Match | None


@dataclass(frozen=True)
class Block:
    """One setting.

    Attributes:
        title: What tells it from every other setting shown.
        setting: How it is trained, and on what it is tested.
        rows: SGD first, then SAM by rho.
    """

    title: str
    setting: Setting
    rows: list[Row]


def build_blocks(groups: Sequence[Group], matches: Mapping[tuple[str, str], Sequence[Match]]) -> list[Block]:
    """Lay out a comparison.

    Args:
        groups: Conditions in the order in which they are shown.
        matches: The cells of the paper that each condition repeats, the closest first, by `Group.key`.

    Returns:
        One block per setting, in the order in which the groups first name it.
    """
    titles = setting_titles(group.setting for group in groups)
    by_setting: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        by_setting[group.setting.key].append(group)
    blocks = []
    for key, members in by_setting.items():
        baseline = _baseline(members)
        rows = [_make_row(group, baseline, matches.get(group.key, ())) for group in members]
        blocks.append(Block(titles[key], members[0].setting, rows))
    return blocks


def _make_row(group: Group, baseline: Group | None, matches: Sequence[Match]) -> Row:
    test_errors = group.values("test_error_pct")
    difference = None
    if baseline is not None and group is not baseline:
        difference = paired_difference(test_errors, baseline.values("test_error_pct"))
    return Row(
        group=group,
        test_error_pct=estimate(list(test_errors.values())),
        test_top5_error_pct=_mean_of(group, "test_top5_error_pct"),
        train_error_pct=_mean_of(group, "train_error_pct"),
        train_clean_error_pct=_mean_of(group, "train_clean_error_pct"),
        seconds=_mean_of(group, "seconds"),
        difference_points=difference,
        paper=matches[0] if matches else None,
    )


def _mean_of(group: Group, name: str) -> Estimate | None:
    return estimate(list(group.values(name).values()))


def _baseline(groups: Sequence[Group]) -> Group | None:
    candidates = [group for group in groups if group.config["optimizer"]["name"] == "sgd"]
    # Two SGD conditions in one setting differ in something unknown: neither is the one to beat.
    return candidates[0] if len(candidates) == 1 else None
