"""An mkdocs hook: writes the tables of the page keys.md from the schema of the config.

The meaning of a key is the comment above it in the schema, so there is no second copy to keep.
"""

import ast
import dataclasses
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever is installed

from sam.config.schema import EvaluateConfig, TrainConfig

MARKER = "<!-- config keys -->"
KINDS = {
    "list[int]": "list of whole numbers",
    "int": "whole number",
    "float": "number",
    "str": "text",
    "bool": "true, false",
}
BOUNDS = {"at_least": ">=", "above": ">", "at_most": "<=", "below": "<"}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the tables in the place of the marker."""
    if MARKER not in markdown:
        return markdown
    return markdown.replace(MARKER, "\n".join([*_tables(TrainConfig, "train.py"), *_evaluation()]))


def _tables(config: type, title: str) -> Iterator[str]:
    """Yield the lines of one table for the keys of a config itself, then of one for each of its groups."""
    groups = {field.name: field.type for field in dataclasses.fields(config) if _is_group(field)}
    yield from _table(config, f"A run ({title})", "")
    for name, group in groups.items():
        assert isinstance(group, type)
        yield from _table(group, name, f"{name}.")


def _evaluation() -> Iterator[str]:
    yield from _table(EvaluateConfig, "An evaluation (evaluate.py)", "")
    yield ""
    yield "`evaluate.py` also takes the keys of `analysis` above."


def _table(config: type, heading: str, prefix: str) -> Iterator[str]:
    comments = _comments(config)
    yield from ("", f"## {heading}", "", config.__doc__ or "", "")
    yield from ("| key | default | allowed | meaning |", "|---|---|---|---|")
    for field in dataclasses.fields(config):
        if _is_group(field):
            continue
        meaning = comments[field.name].replace("|", "\\|")
        is_science = field.metadata.get("science", True) or config is EvaluateConfig
        if not is_science and "identity" not in meaning:
            meaning += " *(not in the identity)*"
        cells = (f"`{prefix}{field.name}`", f"`{_default(field)}`", _allowed(field), meaning)
        yield f"| {' | '.join(cells)} |"


def _is_group(field: "dataclasses.Field[Any]") -> bool:
    return dataclasses.is_dataclass(field.type)


def _default(field: "dataclasses.Field[Any]") -> str:
    """Return a default in the way it is written on the command line."""
    has_factory = field.default_factory is not dataclasses.MISSING
    value = field.default_factory() if has_factory else field.default  # type: ignore[misc]
    words = {None: "null", True: "true", False: "false", "": '""'}
    return words[value] if value in (None, "") or isinstance(value, bool) else str(value)


def _allowed(field: "dataclasses.Field[Any]") -> str:
    rules: Mapping[str, Any] = field.metadata
    if "choices" in rules:
        return ", ".join(f"`{choice}`" for choice in rules["choices"])
    bounds = [f"{sign} {rules[rule]}" for rule, sign in BOUNDS.items() if rule in rules]
    kind = str(field.type).removeprefix("<class '").removesuffix("'>")
    is_optional = kind.endswith(" | None")
    word = KINDS[kind.removesuffix(" | None")]
    infinity = ", or inf" if rules.get("infinite") else ""
    return " ".join(["null or" if is_optional else "", word, " and ".join(bounds)]).strip() + infinity


def _comments(config: type) -> dict[str, str]:
    """Return the comment above each field."""
    lines, _ = inspect.getsourcelines(config)
    (definition,) = ast.parse("".join(lines)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            above = []
            for line in reversed(lines[: statement.lineno - 1]):
                if not line.strip().startswith("#"):
                    break
                above.insert(0, line.strip().lstrip("# "))
            found[statement.target.id] = " ".join(above)
    return found
