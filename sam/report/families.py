"""Families: conditions that can be held against each other, since they agree in their setting."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sam.report.groups import Group
from sam.report.settings import Setting, setting_titles, without


class Family(NamedTuple):
    """Conditions that agree in everything but SAM's keys and a few others.

    Attributes:
        title: What tells it from every other family.
        setting: What its conditions agree in.
        groups: The conditions.
    """

    title: str
    setting: Setting
    groups: list[Group]


def families(groups: Iterable[Group], free: Sequence[str] = (), by_method: bool = False) -> list[Family]:
    """Sort conditions into families, in the order in which the groups first name them.

    Args:
        groups: Conditions.
        free: Dotted keys, besides those of SAM, in which the members of a family may differ.
        by_method: Whether the members of a family must have the same method, too, but for rho.
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
    """Return the SGD condition of one setting; None where there is none, or more than one."""
    found = [group for group in groups if group.config["optimizer"]["name"] == "sgd"]
    # Two SGD conditions in one setting differ in something unknown: neither is the one to beat.
    return found[0] if len(found) == 1 else None
