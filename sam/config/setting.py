"""How the schema declares a key: its default and its rules."""

import copy
import dataclasses
from typing import Any


def setting(default: Any, **rules: Any) -> Any:
    """Declare one key: its default and its rules.

    Args:
        default: The default value; a list is copied for every config.
        rules: `at_least`, `above`, `at_most`, `below` (numbers), `choices`, `label` (strings), `science`,
            `sam_only`. For a list, they apply to each of its values.
    """
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: copy.copy(default), metadata=rules)
    return dataclasses.field(default=default, metadata=rules)
