"""Train one run, from config to result.json, in this process or as one of its processes."""

import pathlib
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from sam.build.data import load_dataset
from sam.build.from_run import check_labels, load_checkpoint, relabelled
from sam.build.network import draw_network, weight_average
from sam.build.resolved import advice_on_precision, numerics, resolve
from sam.build.trainer import make_trainer
from sam.config.schema import TrainConfig
from sam.data.image_files import ImageError
from sam.data.images import Dataset
from sam.data.label_files import write_labels
from sam.data.loading import end_workers
from sam.logs.console import say
from sam.record.directory import clear, locked, read_result, write_config, write_result
from sam.record.identity import path_of
from sam.run.inspection import inspection_during_training
from sam.run.result import make_result
from sam.system.errors import ConfigError, user_errors
from sam.system.machine import reset_peak_memory
from sam.system.processes import this_process
from sam.system.signals import StopRequest, stopped_by_signals
from sam.training.distributed import World, joined_world
from sam.training.loop import Interrupted, Trainer


def run(config: TrainConfig, command: str) -> dict[str, Any]:
    """Train one run to its end, from its checkpoint if there is one, and write its result.

    Args:
        config: A checked config.
        command: The command that continues this run, for the message to the user.

    Returns:
        The contents of result.json.

    Raises:
        ConfigError: If device, dataset or run directory cannot be used; nothing is changed then.
        ProcessError: If another process of the run, or the connection to it, is lost.
        SystemExit: 128 + the signal's number, if a signal in STOPS asked to stop; the state is saved.
    """
    resolved = resolve(config, this_process())
    device = resolved.device
    torch.set_num_threads(resolved.threads)
    reset_peak_memory(device)
    with (
        numerics(resolved),
        joined_world(resolved.process, device, config.runtime.timeout_minutes) as world,
        stopped_by_signals() as stop,
        _workers_ended(),
    ):
        directory = path_of(config)
        with world.main_first():  # else all processes would download a dataset into the same files
            data = load_dataset(config.dataset, config.seed)
        data = relabelled(config, data, directory, device, world)
        network = draw_network(config, data, resolved)
        average = weight_average(config, network)
        inspected = network if average is None else average.network
        inspect = inspection_during_training(config, directory, data, inspected, device)
        trainer = make_trainer(
            config, directory, data, network, resolved, world, stop.is_set, inspect, average
        )
        if world.any(stop.is_set(), device):  # nothing is trained yet, so there is nothing to save
            raise SystemExit(128 + (stop.signal_number or signal.SIGTERM))
        with locked(directory) if world.is_main else nullcontext():
            # Another process may have ended this run while this one loaded the data.
            ended = None if config.force or not world.is_main else read_result(directory)
            if world.any(ended is not None, device):
                return ended or {}
            if world.is_main and (advice := advice_on_precision(resolved.precision, device.type)):
                say(advice)
            _begin(config, directory, trainer, data, world, command)
            result = _fit(config, directory, network, trainer, device, world, stop, command)
        if stop.is_set():  # in the last epoch: this run has ended, but the sweep must stop
            raise SystemExit(128 + stop.signal_number)
    return result


def _begin(
    config: TrainConfig,
    directory: pathlib.Path,
    trainer: Trainer,
    data: Dataset,
    world: World,
    command: str,
) -> None:
    """Load the checkpoint, or with force delete the old run; write the config, and the labels if changed."""
    if not config.force:
        # Load with the same store that saves later: it must know whether the newest checkpoint is damaged.
        state = load_checkpoint(trainer.store)
        if state is not None:
            check_labels(directory, data.train)
            with user_errors(str(directory)):
                trainer.load(state)
    if world.is_main:
        if config.force:
            clear(directory)
        write_config(directory, config, command)
        if data.train.clean_targets is not None:
            write_labels(directory / "labels.npz", data.train.clean_targets, data.train.targets)


def _fit(
    config: TrainConfig,
    directory: pathlib.Path,
    network: nn.Module,
    trainer: Trainer,
    device: torch.device,
    world: World,
    stop: StopRequest,
    command: str,
) -> dict[str, Any]:
    """Train and write the result."""
    try:
        complete = trainer.fit()
    except Interrupted as interruption:
        if world.is_main:
            print(f"stopped and saved; continue with: {command}", file=sys.stderr, flush=True)
        raise SystemExit(128 + stop.signal_number) from interruption
    except ImageError as error:
        raise ConfigError(f"dataset={config.dataset.name}: {error}") from error
    finally:
        trainer.close()
    result = make_result(
        config,
        trainer.progress.rows,
        complete=complete,
        num_parameters=sum(weight.numel() for weight in network.parameters()),
        num_passes=trainer.num_passes,
        total_seconds=trainer.progress.total_seconds,
        device=device,
        num_processes=world.size,
        graph=trainer.uses_graph,
    )
    if world.is_main:
        write_result(directory, result)
        trainer.store.drop_previous()
    return result


@contextmanager
def _workers_ended() -> Iterator[None]:
    """End the workers that read files, also after an error."""
    try:
        yield
    finally:
        end_workers()
