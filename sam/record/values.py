"""The values of a config by dotted key, with defaults for missing keys, and a check for finite numbers."""

import sys
from collections.abc import Mapping
from typing import Any

from sam.config.sam_rules import SAM_RULES
from sam.config.schema import TrainConfig, config_items


def _plain(value: Any) -> Any:
    # 5 and 5.0 are the same value in a config.
    return int(value) if isinstance(value, float) and value.is_integer() else value


DEFAULTS = {name: default for name, default, _ in config_items(TrainConfig())}
PLAIN_DEFAULTS = {name: _plain(default) for name, default in DEFAULTS.items()}
RULES = {name: field.metadata for name, _, field in config_items(TrainConfig())}
RULE_LABELS = {rule: one.label for rule, one in SAM_RULES.items()}


def number(value: object) -> float | None:
    """Return a value as a float if it is a finite number, else None.

    Args:
        value: Any JSON or YAML value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


def decides_numbers(key: str) -> bool:
    """Return whether a key changes the numbers of a run: of known keys, the schema says so.

    Args:
        key: The dotted key; keys of a later version count, except those of the runtime.
    """
    if key not in RULES:
        return not key.startswith("runtime.")
    return bool(RULES[key].get("science", True))


def values_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of every key of a run by dotted name; a key that the config lacks has its default.

    Args:
        config: The resolved config, as nested dictionaries; unknown keys are kept.
    """
    values = dict(PLAIN_DEFAULTS)
    _add_leaves(values, config, "")
    return values


def _add_leaves(values: dict[str, Any], section: Mapping[str, Any], prefix: str) -> None:
    for name, value in section.items():
        if isinstance(value, dict):
            _add_leaves(values, value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = _plain(value)
