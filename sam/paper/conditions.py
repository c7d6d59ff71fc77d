"""Conditions: sets of runs that differ only in their seed, and the tables of the tiers small and one_gpu.

The paper's own conditions, with their printed numbers, are in sam.paper.cells. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sam.config.compose import CONFIGS
from sam.config.composer import composed_quickly
from sam.record.run_files import resolved
from sam.record.values import values_of

TIERS = CONFIGS / "tiers.yaml"
TIER_SEEDS = 3


@dataclass(frozen=True)
class Condition:
    """One condition of one table.

    Attributes:
        name: A name such as table1/cifar10/wrn_28_10_200/basic/sam.
        table: The number of the table in the paper, or a name such as one_gpu/table1.
        overrides: The overrides of train.py for this condition, without seed and alternatives.
        alternatives: Further overrides; each is run on its own, and the best result counts. () if none.
        labels_from: For bootstrapping: the override that gives the run whose predictions are the labels.
        num_seeds: Number of runs in the paper's mean, or a similar number.
    """

    name: str
    table: str
    overrides: tuple[str, ...]
    alternatives: tuple[str, ...]
    labels_from: str
    num_seeds: int

    @property
    def method(self) -> str:
        """The last part of the name: sgd, sam, mixup, bootstrap_sam, ..."""
        return self.name.rpartition("/")[2]


class TierCondition(Condition):
    """A condition of a tier: a smaller stand-in for a table of the paper, without printed numbers."""

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """The value of each key of the condition, by dotted name."""
        return values_of(resolved(composed_quickly(self.overrides)))


def read_tiers(path: Path) -> list[TierCondition]:
    """Return the conditions of all tiers.

    Args:
        path: A file such as configs/tiers.yaml, whose header explains it.
    """
    tables = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        TierCondition(f"{table}/{name}", table, tuple(overrides.split()), (), "", TIER_SEEDS)
        for table, conditions in tables.items()
        for name, overrides in conditions.items()
    ]
