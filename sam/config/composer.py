"""Composes the configs of many runs quickly, and writes overrides in Hydra's syntax. Imports no torch."""

import copy
import hashlib
import pathlib
import re
import shlex
from collections.abc import Iterable, Sequence
from functools import cache

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, Quote, QuotedString
from omegaconf import DictConfig, OmegaConf, open_dict

from sam.config.compose import CONFIGS, checked
from sam.config.schema import GROUPS, TrainConfig
from sam.system.files import write_text


class Composer:
    """Composes the configs of the runs of a sweep.

    Hydra composes each choice of groups (such as model=resnet20 optimizer=sgd) only once. Overrides of single
    keys are then set on a copy, which takes a hundredth of the time.

    Args:
        loader: The loader of this program's configs.
        master: The config of the sweep itself, with Hydra's part.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader = loader
        self._master = master
        self._parser = OverridesParser.create(config_loader=loader)
        self._parsed: dict[str, Override] = {}
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """Return the config for the overrides of one run, without Hydra's part.

        Raises:
            HydraException: If it cannot be composed.
        """
        values = [override for text in overrides if not _chooses(override := self._read(text))]
        choices = tuple(text for text in overrides if _chooses(self._read(text)))
        try:
            config = copy.deepcopy(self._of_choices(choices))
            for override in values:
                if override.type is not OverrideType.CHANGE or override.package is not None:
                    return self._by_hydra(overrides)
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except Exception:  # Hydra raises an error that names the override
            return self._by_hydra(overrides)
        return config

    def _read(self, text: str) -> Override:
        if text not in self._parsed:
            self._parsed[text] = self._parser.parse_override(text)
        return self._parsed[text]

    def _of_choices(self, choices: tuple[str, ...]) -> DictConfig:
        if choices not in self._composed:
            self._composed[choices] = self._by_hydra(choices)
        return self._composed[choices]

    def _by_hydra(self, overrides: Sequence[str]) -> DictConfig:
        config = self._loader.load_sweep_config(self._master, list(overrides))
        with open_dict(config):
            del config["hydra"]
        return config


def composed_quickly(overrides: Sequence[str]) -> TrainConfig:
    """Return the same as `composed`; for many runs with the same choices of groups, this is faster.

    Raises:
        HydraException: If the overrides cannot be composed.
        ConfigError: If anything in them is not allowed.
    """
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return checked(_train_composer()(overrides), TrainConfig)


@cache
def _train_composer() -> Composer:
    master = compose("train", return_hydra_config=True)
    return Composer(GlobalHydra.instance().config_loader(), master)


def quoted(path: str) -> str:
    """Return a path with the quotes that Hydra's command line needs; the path must not contain "${"."""
    if re.fullmatch(r"[\w/.-]+", path, re.ASCII):
        return path
    return QuotedString(path, Quote.single).with_quotes()


def write_list(runs: Iterable[Sequence[str]], folder: str | pathlib.Path, kind: str) -> str:
    """Write the overrides of runs to a file; return the override with which train.py -m trains these runs.

    Args:
        runs: The overrides of each run.
        folder: The folder of the file. The name of the file depends on its content.
        kind: The first word of the name.
    """
    text = "".join(shlex.join(overrides) + "\n" for overrides in runs)
    name = f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.txt"
    path = pathlib.Path(folder).expanduser() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return f"hydra.sweeper.file={quoted(str(path))}"


def _chooses(override: Override) -> bool:
    """Return whether an override chooses from a group, such as model=resnet20."""
    return override.key_or_group in GROUPS or "/" in override.key_or_group
