"""The run directory: where a run lives, what it is called, whether it has ended. Imports no torch.

outputs/<dataset>/<model>/<augmentation>/<optimizer + rho>/seed<k>-<8 hex of the run's identity>/
holds config.yaml, metrics.csv, tensorboard/, checkpoint.pt and, written last, result.json: its presence
means that the run has ended.
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
from sam.system.errors import ConfigError
from sam.system.files import finite_only, write_json, write_text
from sam.system.foreign_files import find_link

# The result first: while these are deleted one by one, no half of a run must look ended.
CONTENTS = (
    "result.json",
    "config.yaml",
    "metrics.csv",
    "tensorboard",
    "analysis",
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
    """Return what an ended run left, or None if it has not ended; a damaged file counts as not ended.

    Raises:
        OSError: If there is a file that cannot be read: the run may have ended, so nothing may begin it anew.
    """
    try:
        return load_result(directory)
    except ValueError:
        return None


def result_if_any(directory: pathlib.Path) -> dict[str, Any] | None:
    """Return what an ended run left; None also if it cannot be read, which the run itself tells of."""
    try:
        return read_result(directory)
    except OSError:
        return None


def read_config(directory: pathlib.Path, key: str = "run") -> TrainConfig:
    """Return the config of a run.

    Args:
        directory: Of the run.
        key: That named it, for the message.

    Raises:
        ConfigError: If the directory is no run directory, or its config cannot be read.
    """
    path = directory / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{key}={directory} is no run directory: {path} is missing; runs lie at "
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
    except Exception as error:  # yaml and omegaconf raise a dozen kinds, all meaning the same here
        raise ConfigError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    assert isinstance(config, TrainConfig)
    try:
        check(config)
    except ConfigError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    return config


def write_config(directory: pathlib.Path, config: TrainConfig, command: str) -> None:
    """Write config.yaml, all keys resolved, under the command that made it and the one that repeats it."""
    again = (
        f"python train.py --config-path='{directory.absolute()}' --config-name=config "
        "hydra.output_subdir=null hydra.run.dir=. hydra/job_logging=none hydra/hydra_logging=none"
    )
    head = f"# Made by: {' '.join(command.split())}\n# From this file alone: {again}\n"
    write_text(directory / "config.yaml", head + OmegaConf.to_yaml(resolved(config)))


def write_result(directory: pathlib.Path, result: dict[str, Any]) -> None:
    """Write result.json, which ends the run; with it the files beside it are sealed."""
    write_json(directory / "result.json", sealed(directory, finite_only(result)))


def clear(directory: pathlib.Path) -> None:
    """Delete what a run left in its directory, and nothing else."""
    for name in CONTENTS:
        for path in (directory / name, directory / f"{name}.unfinished"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def refuse_links(directory: pathlib.Path) -> None:
    """Make sure that what is written into a run directory stays there.

    Raises:
        ConfigError: If there is a link in it.
    """
    if (link := find_link(directory)) is not None:
        raise ConfigError(
            f"{link} is a link, and a run writes no file outside of its directory; put a copy of what it "
            "leads to in its place, or delete it"
        )


@contextmanager
def locked(directory: pathlib.Path) -> Iterator[None]:
    """Make the directory if need be and keep every other process out of it.

    The lock is the operating system's, so it goes with the process, however that dies.

    Raises:
        ConfigError: If another process is in there, or the directory cannot be written.
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
            f"outputs: {directory} cannot be written ({error}); mend that, or choose another folder with "
            "outputs=..."
        ) from error
    try:
        yield
    finally:
        lock.release()
