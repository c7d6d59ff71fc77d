"""Reads config.yaml and result.json of a run directory. No other module reads them.

result.json of an ended run holds the config too. For a run that has not ended, or that an older version
wrote, only config.yaml holds it.
"""

import dataclasses
import io
import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sam.config.schema import TrainConfig
from sam.record.checksums import is_whole
from sam.record.values import RULES, number
from sam.system.foreign_files import MAX_CONFIG_BYTES, read_config_text, read_json, refuse_reference

STATUSES = ("complete", "diverged")
NEEDED = ("message", "seconds", "test_error_pct", "train_error_pct")
# JSON has no infinity.
INFINITY = "inf"
KEYS_WITH_INFINITY = [name.split(".") for name, rules in RULES.items() if rules.get("infinite")]


def resolved(config: TrainConfig) -> dict[str, Any]:
    """Return a config as nested dictionaries, in the form of config.yaml."""
    # A user who repeats the run from its config.yaml wants to continue it, not to delete it.
    return dataclasses.asdict(dataclasses.replace(config, force=False))


def resolved_for_json(config: TrainConfig) -> dict[str, Any]:
    """Return a config as nested dictionaries, in the form of result.json: infinity is the text "inf"."""
    nested = resolved(config)
    _replace_infinity(nested, math.inf, INFINITY)
    return nested


def load_result(directory: Path) -> dict[str, Any] | None:
    """Read result.json; return None if it is missing, because the run has not ended then.

    Args:
        directory: The run directory.

    Raises:
        OSError: If the file exists but cannot be read; the run may have ended.
        ValueError: If the file is damaged, or is not the result of a run.
    """
    path = directory / "result.json"
    if not path.exists():
        return None
    try:
        result = read_json(path)
    except ValueError as error:
        raise ValueError(f"result.json cannot be read: {error}") from error
    if not isinstance(result, dict):
        raise ValueError("result.json holds no keys")
    if result.get("status") not in STATUSES:
        raise ValueError(f"result.json has status {result.get('status')!r}; allowed is {', '.join(STATUSES)}")
    if not isinstance(result.get("identity"), str) or not isinstance(result.get("seed"), int):
        raise ValueError("result.json lacks the identity or the seed of the run")
    if result["status"] == "complete" and number(result.get("test_error_pct")) is None:
        raise ValueError("result.json says complete, but test_error_pct is not a number")
    if missing := [name for name in NEEDED if name not in result]:
        raise ValueError(f"result.json lacks {', '.join(missing)}")
    if not is_whole(result):
        raise ValueError("result.json is damaged: its checksum differs; give the command of the run again")
    return result


def config_file(result: dict[str, Any] | None) -> str:
    """Return the name of the file that `load_config` reads.

    Args:
        result: The return value of `load_result`.
    """
    return "result.json" if result is not None and "config" in result else "config.yaml"


def load_config(directory: Path, result: dict[str, Any] | None) -> Any:
    """Return the config of a run as nested dictionaries, lists and plain values; execute nothing in the file.

    Args:
        directory: The run directory.
        result: The return value of `load_result`.

    Returns:
        The content of the file: a dictionary, if the file is the config of a run. Ended runs of one condition
        share the values, so do not modify them.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is damaged, or holds values that a run never writes.
    """
    if result is None or "config" not in result:
        return _load_yaml(directory / "config.yaml")
    config = result["config"]
    if not isinstance(config, dict):
        raise ValueError("its config holds no keys")
    if not isinstance(seed := config.get("seed"), int):
        raise ValueError("its config has no seed")
    text = json.dumps({**config, "seed": None})
    if len(text) > MAX_CONFIG_BYTES:
        raise ValueError(f"its config is longer than {MAX_CONFIG_BYTES} bytes")
    return {**_shared(text), "seed": seed}


def _load_yaml(path: Path) -> Any:
    text = read_config_text(path)
    try:
        return OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    # yaml and omegaconf raise many kinds of exceptions, all with this meaning.
    except Exception as error:
        raise ValueError(str(error)) from error


# Seeds of one condition share these dictionaries: 10,000 separate configs would take 200 MB.
@lru_cache(maxsize=2048)
def _shared(text: str) -> dict[str, Any]:
    refuse_reference(text)
    config: dict[str, Any] = json.loads(text)
    _replace_infinity(config, INFINITY, math.inf)
    return config


def _replace_infinity(config: dict[str, Any], old: object, new: object) -> None:
    for group, key in KEYS_WITH_INFINITY:
        section = config.get(group)
        if isinstance(section, dict) and section.get(key) == old:
            section[key] = new
