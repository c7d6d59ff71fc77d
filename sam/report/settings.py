"""The setting of a run: all of its config but the seed and the choice between SGD and SAM.

Two runs of one setting can be held against each other; two of different settings cannot.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

# What may differ between runs that are compared, or does not decide their numbers.
IGNORED_KEYS = frozenset(
    {
        "seed",
        "outputs",
        "force",
        "dataset.root",
        "dataset.download",
        "optimizer.name",
        "optimizer.rho",
        "optimizer.adaptive",
        "optimizer.true_gradient",
        "optimizer.replay",
    }
)
KEPT_RUNTIME_KEYS = frozenset({"runtime.precision"})
# Told by the title where they have a value, in these words.
TITLE_KEYS = {
    "dataset.name": "{}",
    "model.name": "{}",
    "augmentation.name": "{}",
    "epochs": "epochs {}",
    "batch_size": "batch {}",
    "m": "m {}",
    "dataset.label_noise": "label noise {}",
    "dataset.num_train": "{} training images",
    "dataset.num_test": "{} test images",
}


@dataclass(frozen=True)
class Setting:
    """What runs of one comparison have in common.

    Attributes:
        key: Equal for equal settings, and for no others.
        fields: The value of each dotted key; keys set to null are left out, as if not there.
    """

    key: str
    fields: Mapping[str, Any]

    @property
    def details(self) -> str:
        """How it is trained, as far as the title does not say so, in one line."""
        elsewhere = ("dataset.", "model.", "augmentation.")
        return ", ".join(
            f"{name}={_text(value)}"
            for name, value in self.fields.items()
            if name not in TITLE_KEYS and not name.startswith(elsewhere)
        )

    @property
    def order(self) -> tuple[str | int, ...]:
        """What to sort settings by."""
        groups = ("dataset", "model", "augmentation")
        names = (str(self.fields[f"{group}.name"]) for group in groups)
        return (*names, int(self.fields["epochs"]), self.key)


def setting_of(config: Mapping[str, Any]) -> Setting:
    """Return the setting of a run.

    Args:
        config: The resolved config, as nested dictionaries; unknown keys count.
    """
    # An image folder is known by its path alone: two of them may bear one name.
    from_folder = config["dataset"].get("reader") == "image_folder"
    kept = KEPT_RUNTIME_KEYS | ({"dataset.root"} if from_folder else set())
    fields = {
        name: value
        for name, value in sorted(_leaves(config), key=itemgetter(0))
        if name in kept or not (name in IGNORED_KEYS or name.startswith("runtime."))
    }
    return Setting(json.dumps(fields, default=str), fields)


def setting_titles(settings: Iterable[Setting]) -> dict[str, str]:
    """Name settings so that no two of them have the same title.

    Args:
        settings: All that are shown together.

    Returns:
        The title of each setting key: dataset, model, augmentation, length and batch, and whatever
        else it takes to tell it from a setting that agrees in those.
    """
    namesakes: dict[str, dict[str, Setting]] = defaultdict(dict)
    for setting in settings:
        namesakes[_short_title(setting)][setting.key] = setting
    titles = {}
    for short_title, group in namesakes.items():
        differing = _differing_keys(list(group.values()))
        for key, setting in group.items():
            told = [f"{name}={_text(setting.fields.get(name))}" for name in differing]
            titles[key] = ", ".join([short_title, *told])
    return titles


def _leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, float) and value.is_integer():
            # 5 and 5.0 are one value to every reader of a config.
            yield f"{prefix}{name}", int(value)
        elif value is not None:
            yield f"{prefix}{name}", value


def _short_title(setting: Setting) -> str:
    # No label noise is the rule and not worth a word.
    silent = {"dataset.label_noise"} if not setting.fields.get("dataset.label_noise") else set()
    return ", ".join(
        words.format(setting.fields[name])
        for name, words in TITLE_KEYS.items()
        if name in setting.fields and name not in silent
    )


def _differing_keys(settings: list[Setting]) -> list[str]:
    names = sorted({name for setting in settings for name in setting.fields})
    return [name for name in names if len({_text(setting.fields.get(name)) for setting in settings}) > 1]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
