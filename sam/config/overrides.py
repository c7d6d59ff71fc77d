"""Checks the overrides on a command line before Hydra composes them. Imports no torch.

Hydra raises the same exception for many mistakes; only its text differs. Here the parsed overrides are
compared with the schema, so the key and the value of each mistake are known.
"""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from sam.config.schema import GROUPS, EvaluateConfig, TrainConfig, config_items
from sam.system.errors import ConfigError, first_line

GROUPS_OF: dict[type[Any], tuple[str, ...]] = {TrainConfig: GROUPS, EvaluateConfig: ("analysis",)}
# The type of every key, and a config that accepts only values of the right type.
KEYS = {schema: {key: field.type for key, _, field in config_items(schema())} for schema in GROUPS_OF}
TYPED = {schema: OmegaConf.structured(schema) for schema in GROUPS_OF}
HINT_ON_INTERPOLATION = "for the characters ${ themselves, write \\${"


def refuse_mistakes(words: Iterable[str], schema: type[Any], *, in_sweep: bool = False) -> None:
    """Refuse overrides with unknown keys, values of a wrong type, or several values outside a sweep.

    Args:
        words: Overrides in Hydra's syntax. Hydra itself checks those of its own keys.
        schema: TrainConfig or EvaluateConfig.
        in_sweep: Whether an override may have several values.

    Raises:
        ConfigError: If there are mistakes; the message has a line for each.
    """
    parser = OverridesParser.create()
    faults: list[str] = []
    for word in dict.fromkeys(words):
        try:
            [override] = parser.parse_overrides([word])
        except OverrideParseException as error:
            faults.append(unreadable(error))
            continue
        if not in_sweep and override.is_sweep_override():
            faults.append(_needs_sweep(override))
            continue
        faults += (fault for single in _single(override, parser) for fault in _faults(single, schema))
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))


def unreadable(error: OverrideParseException) -> str:
    """Return the message for an override that is not KEY=VALUE."""
    return f"{error.override}: cannot be read ({error}); write KEY=VALUE, and quote special characters"


def explain_key(key: str, schema: type[Any] = TrainConfig) -> str:
    """Return the message for an unknown key; it names similar keys, or else the keys of its group."""
    keys = list(KEYS[schema])
    group, _, last = key.rpartition(".")
    siblings = [name for name in keys if name.rpartition(".")[0] == group]
    # First typing errors inside the group, then the same key in other groups, such as rho for optimizer.rho.
    namesakes = [name for name in keys if name.split(".")[-1] == last]
    of_group = [name for name in namesakes if difflib.get_close_matches(group, [name.rpartition(".")[0]])]
    near = near_names(key, siblings) + (of_group or namesakes)
    near = near or near_names(key, [*keys, *GROUPS_OF[schema]])
    if near:
        return f"{key}: there is no such key; did you mean {' or '.join(dict.fromkeys(near))}?"
    if not siblings:
        return f"{key}: there is no such key; see --help for all"
    groups = "" if group else f"; groups are {', '.join(GROUPS_OF[schema])}"
    return f"{key}: there is no such key; allowed is one of {', '.join(siblings)}{groups}"


def explain_type(key: str, value: Any, schema: type[Any] = TrainConfig) -> str:
    """Return the message for a value of a wrong type; it names the type that the key needs."""
    wanted = KEYS[schema][key]
    if wanted == list[int]:
        return f"{key}={value}: allowed is a list of whole numbers, such as [1,4]"
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
    name = next(name for name in words if name in str(wanted))
    return f"{key}={value}: allowed is {words[name]}" + (" or null" if "None" in str(wanted) else "")


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """Return up to two names whose last part (after the last dot) is similar to that of the given name."""
    by_last = {other.split(".")[-1]: other for other in names}
    return [
        by_last[last] for last in difflib.get_close_matches(name.split(".")[-1], by_last, n=2, cutoff=0.7)
    ]


def _single(override: Override, parser: OverridesParser) -> Iterator[Override]:
    """Yield an override for each value of a sweep; none for a pattern, whose matches only Hydra knows."""
    if not override.is_sweep_override():
        yield override
    elif override.is_discrete_sweep() and override.value_type is not ValueType.GLOB_CHOICE_SWEEP:
        for value in override.sweep_string_iterator():
            yield parser.parse_override(f"{override.get_key_element()}={value}")


def _needs_sweep(override: Override) -> str:
    word = override.input_line or ""
    key, _, values = word.partition("=")
    is_list = override.value_type is ValueType.SIMPLE_CHOICE_SWEEP
    hint = f", or write '{key}=[{values}]' if a list is meant" if is_list else ""
    return f"{word}: several values need a sweep; add -m{hint}"


def _faults(override: Override, schema: type[Any]) -> Iterator[str]:
    """Yield a message for each mistake of one override with one value."""
    key, value, word = override.key_or_group, override.value(), override.input_line or ""
    if not key:
        yield f"{word}: write KEY=VALUE"
    elif key not in GROUPS_OF[schema] and not key.startswith("hydra/"):
        if override.is_delete() and key in KEYS[schema]:
            return  # the key then has the schema's default
        if not key.startswith("hydra."):
            yield from _value_faults(key, value, word.partition("=")[2], schema)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _value_faults(f"{key}.{name}", inner, inner, schema)
    elif not isinstance(value, str | list) and not (override.is_delete() and value is None):
        yield f"{word}: a group needs one choice; leave it out, or see --help"


def _value_faults(key: str, value: Any, text: Any, schema: type[Any]) -> Iterator[str]:
    if key not in KEYS[schema]:
        yield explain_key(key, schema)
        return
    try:
        OmegaConf.update(TYPED[schema], key, value, merge=True)
    except GrammarParseError as error:
        yield f"{key}={text}: {first_line(error)}; {HINT_ON_INTERPOLATION}"
    except OmegaConfBaseException:
        yield explain_type(key, text, schema)
