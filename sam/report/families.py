"""Families: conditions that can be compared because they agree in their setting."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sam.report.groups import Group
from sam.report.settings import Setting, setting_titles, without


class Family(NamedTuple):
    """Conditions that differ only in SAM's keys and in the free keys.

    Attributes:
        title: A title that no other family has.
        setting: The keys in which the conditions agree.
        groups: The conditions.
    """

    title: str
    setting: Setting
    groups: list[Group]


def families(groups: Iterable[Group], free: Sequence[str] = (), by_method: bool = False) -> list[Family]:
    """Return the families of some conditions, in the order of their first conditions.

    Args:
        groups: Conditions.
        free: Dotted keys, in addition to those of SAM, in which the members of a family may differ.
        by_method: Whether the members of a family must also have the same method, apart from rho.
    """
    members: dict[tuple[str, str], list[Group]] = defaultdict(list)
    settings: dict[str, Setting] = {}
    for group in groups:
        setting = without(group.setting, free)
        settings[setting.key] = setting
        members[setting.key, group.method if by_method else ""].append(group)
    titles = setting_titles(settings.values())
    return [Family(titles[key], settings[key], found) for (key, _), found in members.items()]


def sgd_of(groups: Iterable[Group]) -> Group | None:
    """Return the SGD condition of one setting; None if there is none or more than one."""
    found = [group for group in groups if group.config["optimizer"]["name"] == "sgd"]
    # Two SGD conditions in one setting differ in something unknown, so neither can be the baseline.
    return found[0] if len(found) == 1 else None
