"""Groups of runs that differ only in their seed: the rows of a comparison."""

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sam.record.reader import Run
from sam.record.values import DEFAULTS, RULE_LABELS, RULES, number, values_of
from sam.report.settings import Setting, base_label, setting_of

# Keys of SAM that a label shows as "adaptive SAM" and "rho=...", and the key that gives the name of the rule.
NAMED_KEYS = ("optimizer.rho", "optimizer.adaptive", "optimizer.rule")
PHRASES = {
    "optimizer.adaptive_for": "for {}",
    "optimizer.p": "p={}",
    "optimizer.direction": "{} direction",
    "optimizer.ascent_steps": "{} ascent steps",
    "optimizer.f_sam_sigma": "sigma={}",
    "optimizer.f_sam_decay": "decay={}",
    "optimizer.vasso_theta": "theta={}",
    "optimizer.le_sam_sigma": "sigma={}",
    "optimizer.le_sam_warm_up": "warm-up={}",
    "optimizer.le_sam_fall": "fall={}",
}


@dataclass(frozen=True)
class Group:
    """The ended runs of one condition.

    Attributes:
        label: Short name, such as "SAM rho=0.05 p=inf"; unique within the setting.
        setting: The keys that the condition shares with those that it is compared with.
        identity: The identity of the condition, 8 hexadecimal digits (sam.record.identity).
        config: The config of one of its runs.
        complete: The runs that reached their last epoch, one per seed, sorted by seed.
        num_diverged: Number of diverged runs; means do not include them.
    """

    label: str
    setting: Setting
    identity: str
    config: dict[str, Any]
    complete: tuple[Run, ...]
    num_diverged: int

    @property
    def key(self) -> tuple[str, str]:
        """A key that no other condition has: the setting and the label."""
        return self.setting.key, self.label

    @property
    def is_sam(self) -> bool:
        """Whether the optimizer is SAM."""
        return bool(self.config["optimizer"]["name"] == "sam")

    @property
    def method(self) -> str:
        """The label without rho, such as "SAM": equal for all conditions of a sweep over rho."""
        return " ".join(_method(self.config))

    @property
    def rho(self) -> float | None:
        """SAM's radius; None for any other optimizer."""
        return number(values_of(self.config)["optimizer.rho"]) if self.is_sam else None

    def values(self, name: str) -> dict[int, float]:
        """Return one number of result.json for each seed that has it.

        Args:
            name: A key of result.json.
        """
        return {
            _result(run)["seed"]: value
            for run in self.complete
            if (value := number(_result(run).get(name))) is not None
        }


def group_runs(runs: Iterable[Run]) -> tuple[list[Group], list[str]]:
    """Group ended runs by setting and condition; runs that have not ended are skipped.

    Args:
        runs: Runs; of several copies of one run, the first is used.

    Returns:
        The groups, setting by setting, SGD before SAM and small rho before large rho. Then the warnings about
        runs left out as copies: one line for each copy with another test error, one line for all others.
    """
    members: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    settings: dict[str, Setting] = {}
    # The seeds of a condition have equal configs, which are described once: there may be thousands of runs.
    described: dict[str, tuple[Setting, str]] = {}
    for run in runs:
        if run.result is not None:
            config = json.dumps({**run.config, "seed": None}, default=str)
            if config not in described:
                described[config] = setting_of(run.config), _label(run.config)
            setting, label = described[config]
            settings[setting.key] = setting
            members[setting.key, label, run.result["identity"]].append(run)
    groups: list[Group] = []
    warnings: list[str] = []
    num_equal = 0
    for (setting_key, label, identity), copies in members.items():
        unique, differing = _one_per_seed(copies)
        warnings += differing
        num_equal += len(copies) - len(unique) - len(differing)
        groups.append(_make_group(label, settings[setting_key], identity, unique))
    if num_equal:
        copies_text = "1 copy of a run" if num_equal == 1 else f"{num_equal} copies of runs"
        warnings.append(f"left out: {copies_text} with the same seed and test error")
    return _with_unique_labels(sorted(groups, key=_order)), warnings


def _result(run: Run) -> dict[str, Any]:
    assert run.result is not None, "only ended runs are grouped"
    return run.result


def _one_per_seed(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Return the first run of each seed, and a line about each later one that has another test error."""
    kept: dict[int, Run] = {}
    differing = []
    for run in runs:
        seed = _result(run)["seed"]
        first = kept.setdefault(seed, run)
        if _result(first).get("test_error_pct") != _result(run).get("test_error_pct"):
            repeats = f"it repeats seed {seed} of {first.directory}"
            differing.append(f"{run.directory}: left out, {repeats}, but has another test error")
    return [kept[seed] for seed in sorted(kept)], differing


def _make_group(label: str, setting: Setting, identity: str, runs: list[Run]) -> Group:
    complete = tuple(run for run in runs if _result(run)["status"] == "complete")
    return Group(
        label=label,
        setting=setting,
        identity=identity,
        config=runs[0].config,
        complete=complete,
        num_diverged=len(runs) - len(complete),
    )


def _label(config: dict[str, Any]) -> str:
    name, *departures = _method(config)
    rho = number(values_of(config)["optimizer.rho"]) if config["optimizer"]["name"] == "sam" else None
    return " ".join([name, *departures] if rho is None else [name, f"rho={rho:g}", *departures])


def _method(config: dict[str, Any]) -> list[str]:
    """Return the name of the optimizer, then a phrase for each key of SAM that is not at its default."""
    values = values_of(config)
    if values["optimizer.name"] == "sgd":
        return [base_label(values)]
    if values["optimizer.name"] != "sam":
        return [str(values["optimizer.name"]).upper()]
    departures = [
        _phrase(name, values[name])
        for name, rules in RULES.items()
        if rules.get("sam_only") and name not in NAMED_KEYS and values[name] != DEFAULTS[name]
    ]
    rule = str(values["optimizer.rule"])
    label = RULE_LABELS.get(rule, rule)  # a newer version may know more rules
    return [f"adaptive {label}" if values["optimizer.adaptive"] else label, *departures]


def _phrase(name: str, value: object) -> str:
    if name in PHRASES:
        return PHRASES[name].format(value)
    words = name.removeprefix("optimizer.").replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return f"{words} {value}"


def _order(group: Group) -> tuple[object, ...]:
    rho = -1.0 if group.rho is None else group.rho
    return (*group.setting.order, group.is_sam, group.method, rho, group.label, group.identity)


def _with_unique_labels(groups: list[Group]) -> list[Group]:
    counts = Counter((group.setting.key, group.label) for group in groups)
    return [
        group
        if counts[group.setting.key, group.label] == 1
        else dataclasses.replace(group, label=f"{group.label} [{group.identity}]")
        for group in groups
    ]
