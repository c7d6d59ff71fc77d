"""The runs of each condition: their config, device and software, and how they ended."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sam.record.reader import Run
from sam.record.values import DEFAULTS, RULES, number, values_of
from sam.report.comparison import Comparison
from sam.report.html.tables import MANY
from sam.report.markup import NOTHING
from sam.report.settings import setting_titles
from sam.report.text_tables import TextTable

# Keys that are not listed: the table has the seed and the path, and force does not matter to a reader.
OF_EACH_RUN = ("seed", "outputs", "force")
HEADER = [
    "Seed",
    "Status",
    "Epochs",
    "Test error (%)",
    "Seconds",
    "Peak memory (MiB)",
    "Ended at (UTC)",
]
# Keys of result.json that are shown once if all runs agree in them, else in a column.
ORIGIN = ("device", "precision", "threads", "processes", "commit", "versions")


class RunList(NamedTuple):
    """The runs of one condition, or of one setting.

    Attributes:
        title: The title of the setting; for a single condition, its label comes first.
        num_runs: Number of runs.
        folder: The folder to which the paths of a setting's runs are relative; None for a single condition.
        changed: KEY=VALUE for each key that has the same non-default value in all runs.
        origin: Device, software and similar values that all runs share.
        text: The table of the runs.
    """

    title: str
    num_runs: int
    folder: str | None
    changed: list[str]
    origin: list[str]
    text: TextTable


def run_lists(comparison: Comparison) -> list[RunList]:
    """List the ended runs, one table per condition; if there are many conditions, one table per setting.

    Args:
        comparison: The runs and their comparison.
    """
    titles = setting_titles(group.setting for group in comparison.groups)
    names = {
        group.identity: (group.label, titles[group.setting.key]) for group in reversed(comparison.groups)
    }
    by_identity: dict[str, list[Run]] = {identity: [] for identity in reversed(names)}
    for run in comparison.runs:
        if run.result is not None:
            by_identity[run.result["identity"]].append(run)
    if len(by_identity) <= MANY:
        return [_of_condition(": ".join(names[identity]), runs) for identity, runs in by_identity.items()]
    by_title: dict[str, list[tuple[str, Run]]] = {}
    for identity, runs in by_identity.items():
        label, title = names[identity]
        by_title.setdefault(title, []).extend((label, run) for run in runs)
    return [_of_setting(title, labelled) for title, labelled in by_title.items()]


def interrupted_table(runs: Sequence[Run]) -> TextTable:
    """List the runs that have not ended: interrupted or still running.

    Args:
        runs: At least one run.
    """
    rows = [
        [str(run.directory), f"{run.last_epoch} of {run.config['epochs']}", _last_error(run)] for run in runs
    ]
    return TextTable(["Run", "Epochs", "Test error so far (%)"], rows)


def _of_condition(title: str, runs: Sequence[Run]) -> RunList:
    text, changed, origin = _table(["Run"], [[str(run.directory)] for run in runs], runs)
    return RunList(title, len(runs), None, changed, origin, text)


def _of_setting(title: str, labelled: Sequence[tuple[str, Run]]) -> RunList:
    """List the runs of one setting, each with its method and the part of its path that differs."""
    folder = os.path.commonpath([run.directory.parent.absolute() for _, run in labelled])
    leads = [[os.path.relpath(run.directory, folder), label] for label, run in labelled]
    text, changed, origin = _table(["Run", "Method"], leads, [run for _, run in labelled])
    return RunList(title, len(labelled), folder, changed, origin, text)


def _table(
    head: Sequence[str], leads: Sequence[Sequence[str]], runs: Sequence[Run]
) -> tuple[TextTable, list[str], list[str]]:
    """Return the table of runs, and the settings and origin that they share.

    The first cells of each row are `leads`, with the headers `head`.
    """
    values = [values_of(run.config) for run in runs]
    names = [
        name
        for name in dict.fromkeys(name for one in values for name in one)
        if name not in OF_EACH_RUN and not ("Method" in head and _is_of_method(name))
    ]
    differing = _differing(values, names)
    changed = [
        f"{name}={_text(values[0][name])}"
        for name in names
        if name not in differing and (name not in DEFAULTS or values[0][name] != DEFAULTS[name])
    ]
    origins = [_origin(run) for run in runs]
    parted = _differing(origins, ORIGIN)
    shared = [f"{name} {origins[0][name]}" for name in ORIGIN if name in origins[0] and name not in parted]
    rows = [
        [
            *lead,
            *_cells(run),
            *(origin.get(name, NOTHING) for name in parted),
            *(_text(one.get(name)) for name in differing),
        ]
        for lead, run, origin, one in zip(leads, runs, origins, values, strict=True)
    ]
    header = [*head, *HEADER, *(name.capitalize() for name in parted), *differing]
    return TextTable(header, rows), changed, shared


def _is_of_method(name: str) -> bool:
    return name == "optimizer.name" or (name in RULES and bool(RULES[name].get("sam_only")))


def _differing(values: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    return [name for name in names if any(one.get(name) != values[0].get(name) for one in values)]


def _origin(run: Run) -> dict[str, str]:
    """Return the device and the software of a run."""
    result = run.result or {}
    found = {name: result[name] for name in ORIGIN if result.get(name) is not None}
    if isinstance(versions := found.get("versions"), dict):
        found["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return {name: str(value) for name, value in found.items()}


def _cells(run: Run) -> list[str]:
    result = run.result or {}
    status = str(result["status"])
    is_complete = status == "complete"
    return [
        str(result["seed"]),
        f"{status}: {result['message']}" if result.get("message") else status,
        str(run.config["epochs"] if is_complete else run.last_epoch),
        _number(result.get("test_error_pct"), 2),
        _number(result.get("seconds"), 0),
        _number(result.get("peak_memory_mib"), 0),
        str(result.get("ended_at") or NOTHING).removesuffix("+00:00").replace("T", " "),
    ]


def _last_error(run: Run) -> str:
    return _number(run.last_row.get("test_error_pct"), 2)


def _number(value: object, digits: int) -> str:
    found = number(value)
    return NOTHING if found is None else f"{found:.{digits}f}"


def _text(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
