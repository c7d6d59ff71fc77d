"""Reads the YAML of a config as OmegaConf does, in a tenth of its time: a report may read a thousand."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from sam.system.foreign_files import read_config_text

# OmegaConf's: YAML 1.1 takes 1e-5 for a word and 2026-01-01 for a date.
FLOAT = re.compile(
    r"""^(?:
     [-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
FLOAT_TAG, DATE_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
HEAD = re.compile(r"\A(?:#.*\n)+")
SEED = re.compile(r"^seed: (0|[1-9][0-9]*)$", re.MULTILINE)
# In the place of the seed; nothing else in a config has this value.
ANY_SEED = 707_717_727_737
# The parser in C, where this installation of yaml has it; both build plain values only.
SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _ConfigLoader(SafeLoader):  # type: ignore[misc]
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise yaml.constructor.ConstructorError(
                "while constructing a mapping", node.start_mark, f"found duplicate key {twice}"
            )
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


_ConfigLoader.add_implicit_resolver(FLOAT_TAG, FLOAT, list("-+0123456789."))
_ConfigLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != DATE_TAG]
    for first, resolvers in _ConfigLoader.yaml_implicit_resolvers.items()
}


def load_config(path: Path) -> Any:
    """Read what a config file holds; nothing in it is resolved or run.

    Texts that differ in their seed and in comments at their head alone are parsed once.

    Args:
        path: A YAML file.

    Returns:
        Nested dictionaries, lists and plain values; an empty dictionary for an empty file. Seeds of a
        condition share those inside of it, so leave them as they are.

    Raises:
        OSError: If it is not there or cannot be read.
        ValueError: If it is no regular file, too long for the config of a run, or has an alias.
        yaml.YAMLError: If it is no YAML, sets a key twice, or holds other than plain values.
    """
    text = read_config_text(path)
    # The lines stay, since a message names them.
    text = HEAD.sub(lambda head: "\n" * head[0].count("\n"), text)
    if len(seeds := SEED.findall(text)) == 1:
        content = _parse(SEED.sub(f"seed: {ANY_SEED}", text))
        if isinstance(content, dict) and content.get("seed") == ANY_SEED:
            return {**content, "seed": int(seeds[0])}
    content = _parse(text)
    return {} if content is None else content


# Keyed by all that it reads, it cannot be out of date. It holds 10 MB of configs at most.
@lru_cache(maxsize=2048)
def _parse(text: str) -> Any:
    # A SafeLoader by its base, which Bandit does not see.
    return yaml.load(text, Loader=_ConfigLoader)  # nosec B506
