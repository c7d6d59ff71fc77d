"""The setting of a run: all keys that decide its numbers, except the seed and the keys of SGD versus SAM.

Runs can be compared if they have the same setting. A key that a config lacks has its default, so that old
runs have the same setting as new ones after a key is added.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sam.record.values import DEFAULTS, RULES, decides_numbers, values_of

# Keys that every title shows, with their words.
TITLE_KEYS = {
    "dataset.name": "{}",
    "model.name": "{}",
    "augmentation.name": "{}",
    "epochs": "epochs {}",
    "batch_size": "batch {}",
    "m": "m {}",
}
# The names of the base optimizers in tables.
BASE_LABELS = {"sgd": "SGD", "adamw": "AdamW", "rmsprop": "RMSprop"}
# Keys that a title shows only if their value is not the default.
CHANGED_TITLE_KEYS = {
    "dataset.label_noise": "label noise {}",
    "dataset.label_noise_kind": "{}",
    "dataset.label_noise_over": "drawn over {}",
    "dataset.label_file": "labels of {}",
    "dataset.label_name": "{}",
    "dataset.relabel_from": "labels predicted by {}",
    "dataset.num_train": "{} training images",
    "dataset.subset_seed": "drawn per seed",
    "dataset.num_test": "{} test images",
    "dataset.validation": "validation on {}",
    "dataset.verify": "not verified",
    "optimizer.base": "{}",
    "ema_decay": "EMA of the weights {}",
}
# Training keys that a line of details shows only if their value is not the default.
CHANGED_DETAILS = ("optimizer.warmup_epochs",)
HELD_OUT = {"last": "the last tenth", "random": "a random tenth"}
SPOILED_LABELS = ("dataset.label_noise", "dataset.label_file", "dataset.relabel_from")


@dataclass(frozen=True)
class Setting:
    """The keys that all runs of one comparison share.

    Attributes:
        key: A text that identifies the setting.
        fields: The value of each dotted key; keys set to null are left out.
    """

    key: str
    fields: Mapping[str, Any]

    @property
    def split(self) -> str:
        """The split of the test error: "test", or "validation" if training images are held out."""
        return "test" if self.fields.get("dataset.validation", "none") == "none" else "validation"

    @property
    def base(self) -> str:
        """The name of the base optimizer, such as "SGD": that of the runs without SAM."""
        return base_label(self.fields)

    @property
    def has_clean_labels(self) -> bool:
        """Whether the training labels are the true labels."""
        return not any(self.fields.get(key) for key in SPOILED_LABELS)

    @property
    def draws_data_per_seed(self) -> bool:
        """Whether each seed has its own training images or labels."""
        fields = self.fields
        draws_labels = fields.get("dataset.label_noise") or fields.get("dataset.relabel_from")
        return bool(draws_labels) or fields.get("dataset.subset_seed") == "run"

    @property
    def details(self) -> str:
        """The training keys that the title does not show, in one line."""
        elsewhere = ("dataset.", "model.", "augmentation.")
        return ", ".join(
            f"{name}={value_text(value)}"
            for name, value in self.fields.items()
            if name not in {**TITLE_KEYS, **CHANGED_TITLE_KEYS}
            and not name.startswith(elsewhere)
            and (name not in CHANGED_DETAILS or value != DEFAULTS[name])
        )

    @property
    def order(self) -> tuple[str | int, ...]:
        """The sort key of the setting."""
        groups = ("dataset", "model", "augmentation")
        names = (str(self.fields[f"{group}.name"]) for group in groups)
        return (*names, int(self.fields["epochs"]), self.key)


def base_label(values: Mapping[str, Any]) -> str:
    """Return the name of the base optimizer in tables.

    Args:
        values: The values of a run by dotted key.
    """
    base = str(values["optimizer.base"])
    return BASE_LABELS.get(base, base)  # a newer version may know more


def of_any_seed(directory: str) -> str:
    """Return the path of a run directory with seed* in the place of its seed."""
    return re.sub(r"seed\d+-", "seed*-", directory)


def setting_of(config: Mapping[str, Any]) -> Setting:
    """Return the setting of a run.

    Args:
        config: The resolved config, as nested dictionaries; unknown keys count.
    """
    values = values_of(config)
    if values["dataset.relabel_from"] is not None:
        # Each seed of a bootstrapped condition gets its labels from one seed of another condition.
        source = os.path.normpath(str(values["dataset.relabel_from"]))
        values["dataset.relabel_from"] = of_any_seed(source)
    # Only the path identifies an image folder: two folders may have the same dataset.name.
    from_folder = values["dataset.reader"] == "image_folder"
    fields = {
        name: value
        for name, value in sorted(values.items())
        if value is not None and (_counts(name) or (name == "dataset.root" and from_folder))
    }
    return Setting(json.dumps(fields, default=str), fields)


def without(setting: Setting, names: Iterable[str]) -> Setting:
    """Return a setting without some keys, which may then differ."""
    fields = {name: value for name, value in setting.fields.items() if name not in set(names)}
    return Setting(json.dumps(fields, default=str), fields)


def setting_titles(settings: Iterable[Setting]) -> dict[str, str]:
    """Return a title for each setting, so that no two titles are equal.

    Args:
        settings: All settings that are shown together.

    Returns:
        The title by setting key: dataset, model, augmentation, epochs and batch size, and the other keys
        that distinguish it from settings that agree in those.
    """
    by_short_title: dict[str, dict[str, Setting]] = defaultdict(dict)
    for setting in settings:
        by_short_title[_short_title(setting)][setting.key] = setting
    titles = {}
    for short_title, group in by_short_title.items():
        differing = _differing_keys(list(group.values()))
        for key, setting in group.items():
            shown = [f"{name}={value_text(setting.fields.get(name))}" for name in differing]
            titles[key] = ", ".join([short_title, *shown])
    return titles


def _counts(name: str) -> bool:
    """Return whether a key decides the numbers of both SGD and SAM."""
    of_sam = name in RULES and RULES[name].get("sam_only", False)
    return decides_numbers(name) and not of_sam and name not in ("seed", "optimizer.name")


def _short_title(setting: Setting) -> str:
    shown = {name: setting.fields[name] for name in TITLE_KEYS if name in setting.fields}
    for name in CHANGED_TITLE_KEYS:
        if name in setting.fields and setting.fields[name] != DEFAULTS[name]:
            shown[name] = setting.fields[name]
    if "dataset.validation" in shown:
        shown["dataset.validation"] = HELD_OUT.get(str(shown["dataset.validation"]), "training images")
    words = {**TITLE_KEYS, **CHANGED_TITLE_KEYS, "dataset.num_test": f"{{}} {setting.split} images"}
    return ", ".join(words[name].format(value) for name, value in shown.items())


def _differing_keys(settings: list[Setting]) -> list[str]:
    names = sorted({name for setting in settings for name in setting.fields})
    return [name for name in names if len({value_text(setting.fields.get(name)) for setting in settings}) > 1]


def value_text(value: object) -> str:
    """Return the value of a key as tables show it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
