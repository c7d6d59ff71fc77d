"""The differences between the configs of two runs, or of two conditions (runs that differ only in seed)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sam.record.reader import Run, find_runs, read_config
from sam.record.values import DEFAULTS, RULES, decides_numbers, values_of
from sam.report.markup import render_table
from sam.report.settings import of_any_seed, value_text

NOT_READ = "(not read)"
NO_NUMBERS = "Keys that decide no number"


class Side(NamedTuple):
    """One of the two configs.

    Attributes:
        name: The text that the user gave.
        config: The resolved config.
        is_condition: Whether the user named a condition, so that the seed is not compared.
    """

    name: str
    config: Mapping[str, Any]
    is_condition: bool


class KeyDifference(NamedTuple):
    """A key with two values.

    Attributes:
        key: The dotted key.
        first: Its value in the first config; NOT_READ if SGD does not read it.
        second: Its value in the second config.
        decides_numbers: Whether the key is part of the identity of a run, or the seed.
    """

    key: str
    first: Any
    second: Any
    decides_numbers: bool


def find_sides(names: Sequence[str], roots: Sequence[Path]) -> list[Side]:
    """Return the configs of run directories, or of the conditions with given identities.

    Args:
        names: For each side, a run directory, or the identity of a condition: the 8 hexadecimal digits at the
            end of the name of its run directories.
        roots: Folders in which conditions are searched.

    Raises:
        ValueError: If a run cannot be read, or no run has an identity.
    """
    runs = find_runs(roots)[0] if any(map(_is_identity, names)) else []
    return [_of_condition(name, runs, roots) if _is_identity(name) else _of_run(name) for name in names]


def _is_identity(name: str) -> bool:
    return re.fullmatch("[0-9a-f]{8}", name) is not None and not Path(name).is_dir()


def _of_run(name: str) -> Side:
    try:
        return Side(name, read_config(Path(name)), is_condition=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--diff {name}: {error}; name a run directory, or the identity of a condition (the 8 "
            "hexadecimal digits at the end of the name of its run directories)"
        ) from error


def _of_condition(name: str, runs: Iterable[Run], roots: Sequence[Path]) -> Side:
    found = next((run for run in runs if _identity(run) == name), None)
    if found is None:
        folders = ", ".join(map(str, roots))
        raise ValueError(
            f"--diff {name}: no run in {folders} has this identity; name the folder of your runs"
        )
    return Side(name, found.config, is_condition=True)


def differences(first: Side, second: Side) -> list[KeyDifference]:
    """Return the keys whose values differ, in the order of the schema.

    A key that a config lacks has its default. SGD does not read the keys of SAM. If one side is SGD, such a
    key is shown only if the other side has changed it, and rho always. If one side is a condition, the seed
    and the keys that decide no number are left out.

    Args:
        first: A config.
        second: The other config.
    """
    values, others = _read_values(first.config), _read_values(second.config)
    has_condition = first.is_condition or second.is_condition
    found = []
    for key in dict.fromkeys([*values, *others]):
        left = _comparable(key, values.get(key), has_condition)
        right = _comparable(key, others.get(key), has_condition)
        is_shown = left != right and not (has_condition and (key == "seed" or not decides_numbers(key)))
        is_unread = NOT_READ in (left, right) and DEFAULTS.get(key) in (left, right)
        if is_shown and (key == "optimizer.rho" or not is_unread):
            found.append(KeyDifference(key, left, right, decides_numbers(key)))
    return found


def render_differences(first: Side, second: Side, found: Iterable[KeyDifference]) -> str:
    """Write two tables as Markdown: keys that decide the numbers, then the others; a table may be missing.

    Args:
        first: The config of the first column of values.
        second: The config of the second column.
        found: The return value of `differences`.
    """
    parts = ["# Difference of two configs", f"- A: {first.name}\n- B: {second.name}"]
    by_kind: dict[bool, list[list[str]]] = {True: [], False: []}
    for key, old, new, decides in found:
        by_kind[decides].append([key, value_text(old), value_text(new)])
    for decides, rows in by_kind.items():
        heading = "Key" if decides else NO_NUMBERS
        parts += [render_table([heading, "A", "B"], rows)] if rows else []
    if not by_kind[True]:
        parts.append("All keys that decide the numbers are equal.")
    return "\n\n".join(parts)


def _identity(run: Run) -> str:
    # A run that has not ended has no result yet.
    return str(run.result["identity"]) if run.result else run.directory.name.rpartition("-")[2]


def _read_values(config: Mapping[str, Any]) -> dict[str, Any]:
    values = values_of(config)
    if values["optimizer.name"] != "sam":
        values |= {key: NOT_READ for key, rules in RULES.items() if rules.get("sam_only")}
    return values


def _comparable(key: str, value: Any, has_condition: bool) -> Any:
    if key == "dataset.relabel_from" and has_condition and value is not None:
        return of_any_seed(str(value))
    return value
