"""Every preset keeps its run directory forever, so that the code finds all earlier runs.

Each line of identities.json holds a command line of train.py and its run directory. A new preset needs new
lines, with the path that the failing test prints. An existing line never changes. (The presets of AutoAugment
got auto_augment_draws=batch once. Lines with auto_augment_draws=image have the paths of their older runs.)
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sam.record.identity import path_of
from tests.config.test_schema import CHOICES, composed

PATHS: dict[str, str] = {
    entry["overrides"]: entry["path"]
    for entry in json.loads(Path(__file__).with_name("identities.json").read_text(encoding="utf-8"))
}
GROUPS = sorted(set(CHOICES) - {"hydra"})  # hydra/* decides how a run is started, not its numbers
PRESETS = {f"{group}={choice}" for group in GROUPS for choice in CHOICES[group]}


def presets_of(line: str) -> set[str]:
    return PRESETS.intersection(line.split())


def first_lines() -> Iterator[str]:
    """Yield the lines that are the first to name some preset."""
    seen: set[str] = set()
    for line in PATHS:
        if not presets_of(line) <= seen:
            seen |= presets_of(line)
            yield line


FIRST_LINES = set(first_lines())


@pytest.mark.parametrize(
    "line",
    [pytest.param(line, marks=[] if line in FIRST_LINES else [pytest.mark.slow]) for line in PATHS],
)
def test_command_line_has_the_run_directory_that_it_always_had(line: str) -> None:
    assert path_of(composed(*line.split())).as_posix() == PATHS[line]


@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_every_preset_has_a_line_for_each_optimizer(optimizer: str) -> None:
    lines = [line for line in PATHS if f"optimizer={optimizer}" in line.split()]
    assert set().union(*map(presets_of, lines)) == PRESETS - {
        f"optimizer={other}" for other in CHOICES["optimizer"] if other != optimizer
    }
