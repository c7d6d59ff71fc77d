"""The run directory: its files, its lock, and whether the run has ended. Imports no torch.

The path is outputs/<dataset>/<model>/<augmentation>/<optimizer + rho>/seed<k>-<8 hex of the run's identity>/.
It holds config.yaml, metrics.csv, tensorboard/, checkpoint.pt and result.json. result.json is written last:
if it exists, the run has ended.
"""

import pathlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import filelock
from omegaconf import OmegaConf

from sam.config.check import check
from sam.config.schema import TrainConfig
from sam.record.checksums import check_file, sealed
from sam.record.run_files import config_file, load_config, load_result, resolved
from sam.system.errors import ConfigError, first_line
from sam.system.files import finite_only, write_json, write_text
from sam.system.foreign_files import find_link

# result.json is deleted first, so that a half-deleted run never looks ended.
CONTENTS = (
    "result.json",
    "config.yaml",
    "metrics.csv",
    "tensorboard",
    "analysis",
    "weights",
    "checkpoint.pt",
    "checkpoint.previous.pt",
    "checkpoint.unfinished.pt",
    "evaluation-test.json",
    "evaluation-validation.json",
    "evaluation-train.json",
    "evaluation-train_clean.json",
    "labels.npz",
)


def read_result(directory: pathlib.Path) -> dict[str, Any] | None:
    """Return the result of an ended run, or None if it has not ended; a damaged file counts as not ended.

    Raises:
        OSError: If the file exists but cannot be read. The run may have ended, so it must not be restarted.
    """
    try:
        return load_result(directory)
    except ValueError:
        return None


def result_if_any(directory: pathlib.Path) -> dict[str, Any] | None:
    """Return the result of an ended run, or None; also None for an unreadable file, which the run reports."""
    try:
        return read_result(directory)
    except OSError:
        return None


def read_config(directory: pathlib.Path, key: str = "run") -> TrainConfig:
    """Return the config of a run.

    Args:
        directory: The run directory.
        key: The config key that named the directory, for error messages.

    Raises:
        ConfigError: If this is not a run directory, or its config cannot be read.
    """
    path = directory / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{key}={directory} is not a run directory: {path} is missing; run directories are "
            "outputs/<dataset>/<model>/<augmentation>/<optimizer>/seed<k>-<id>"
        )
    result = read_result(directory)
    try:
        check_file(path, result or {})
    except ValueError as error:
        raise ConfigError(f"{directory}/{error}") from error
    path = directory / config_file(result)
    try:
        loaded = load_config(directory, result)
        if not loaded:
            raise ValueError("it is empty")
        merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.create(loaded))
        config = OmegaConf.to_object(merged)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # yaml and omegaconf raise many kinds, all with this meaning
        raise ConfigError(f"{path} is damaged: {first_line(error)}") from error
    assert isinstance(config, TrainConfig)
    try:
        check(config)
    except ConfigError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    return config


def write_config(directory: pathlib.Path, config: TrainConfig, command: str) -> None:
    """Write config.yaml with all keys resolved; its head shows this command and one that repeats the run."""
    again = (
        f"python train.py --config-path='{directory.absolute()}' --config-name=config "
        "hydra.output_subdir=null hydra.run.dir=. hydra/job_logging=none hydra/hydra_logging=none"
    )
    head = f"# Made by: {' '.join(command.split())}\n# From this file alone: {again}\n"
    write_text(directory / "config.yaml", head + OmegaConf.to_yaml(resolved(config)))


def write_result(directory: pathlib.Path, result: dict[str, Any]) -> None:
    """Write result.json with checksums. This marks the run as ended."""
    write_json(directory / "result.json", sealed(directory, finite_only(result)))


def clear(directory: pathlib.Path) -> None:
    """Delete the files of a run from its directory, and nothing else."""
    for name in CONTENTS:
        for path in (directory / name, directory / f"{name}.unfinished"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def refuse_links(directory: pathlib.Path) -> None:
    """Refuse a run directory with links, through which files would be written elsewhere.

    Raises:
        ConfigError: If there is a link in the directory.
    """
    if (link := find_link(directory)) is not None:
        raise ConfigError(
            f"{link} is a link, and a run must not write files outside its directory; replace the link by a "
            "copy of its target, or delete it"
        )


@contextmanager
def locked(directory: pathlib.Path) -> Iterator[None]:
    """Create the directory if it is missing, and lock it against other processes.

    The operating system holds the lock and releases it when the process ends, even after a kill.

    Raises:
        ConfigError: If another process holds the lock, or the directory cannot be written.
    """
    lock = filelock.FileLock(directory / ".lock")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        refuse_links(directory)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise ConfigError(
            f"another process is working in {directory}; wait for it, or change seed or outputs"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"outputs: {directory} cannot be written ({error}); correct this, or choose another folder with "
            "outputs=..."
        ) from error
    try:
        yield
    finally:
        lock.release()
