"""The one worker: one run, from config to result.json, in this process (or its part of it)."""

import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from sam import build, build_data
from sam.analyse import analyse
from sam.config import ConfigError, TrainConfig, user_errors
from sam.data.batches import generator_for
from sam.data.image_files import ImageError
from sam.data.images import Dataset
from sam.data.label_files import write_labels
from sam.data.loading import end_workers
from sam.logs.console import say
from sam.result import make_result, reset_peak_memory
from sam.run_directory import clear, locked, path_of, read_result, write_config, write_result
from sam.stops import StopRequest, stopped_by_signals
from sam.subject import Subject
from sam.trained import Moment, check_labels, load_checkpoint, relabelled
from sam.training.checkpoint import CheckpointStore
from sam.training.distributed import World, data_parallel, joined_world
from sam.training.evaluation import Evaluation, evaluate
from sam.training.loop import Interrupted, Trainer
from sam.training.precision import Precision
from sam.training.sharding import shard

DEFAULT_THREADS = torch.get_num_threads()


def run(config: TrainConfig, command: str) -> dict[str, Any]:
    """Train one run to its end, from its checkpoint if there is one, and write its result.

    Args:
        config: A checked config.
        command: What continues this run, for the message to the user.

    Returns:
        What result.json holds.

    Raises:
        ConfigError: If the machine, the data or the run directory do not allow it; nothing is changed then.
        ProcessError: If another process of the run, or the way to it, is gone.
        SystemExit: 128 + the signal's number, if one of STOPS asked to stop; the state is saved.
    """
    device = build.device(config.runtime.device, config.runtime.precision)
    torch.set_num_threads(config.runtime.threads or _default_threads())
    reset_peak_memory(device)
    patience = config.runtime.timeout_minutes
    with joined_world(device, patience) as world, stopped_by_signals() as stop, _workers_ended():
        directory = path_of(config)
        with world.main_first():  # all at once would fetch a dataset into the same files
            data = build_data.dataset(config.dataset, config.seed)
        data = relabelled(config, data, directory, device, world)
        network = _network(config, data, device, world)
        trainer = _trainer(config, directory, data, network, device, world, stop)
        if world.any(stop.is_set(), device):  # nothing is trained yet, so there is nothing to save
            raise SystemExit(128 + (stop.signal_number or signal.SIGTERM))
        with locked(directory) if world.is_main else nullcontext():
            # Another process may have ended this run while the data were loaded here.
            ended = None if config.force or not world.is_main else read_result(directory)
            if world.any(ended is not None, device):
                return ended or {}
            _begin(config, directory, trainer, data, world, command)
            result = _fit(config, directory, network, trainer, device, world, stop, command)
        if stop.is_set():  # in the last epoch: this run is done, but a sweep is to end
            raise SystemExit(128 + stop.signal_number)
    return result


def _default_threads() -> int:
    """Return torch's choice; where the processes of this machine share it and nobody chose, their share."""
    sharing = 1 if "OMP_NUM_THREADS" in os.environ else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, DEFAULT_THREADS // sharing)


def _network(config: TrainConfig, data: Dataset, device: torch.device, world: World) -> nn.Module:
    """Draw the network, the same in all processes, and seed what they draw later, each for itself."""
    torch.manual_seed(config.seed)
    if config.model.init_seed is None:
        network = build.model(config.model, data, device)
    else:
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed(), which also seeds the GPUs: their draws are the run's.
            torch.default_generator.manual_seed(config.model.init_seed)
            network = build.model(config.model, data, device)
    if not world.is_main:
        torch.manual_seed(generator_for("process", config.seed, world.rank).initial_seed())
    if config.runtime.grad_checkpointing:
        with user_errors("runtime.grad_checkpointing=true"):
            network.set_grad_checkpointing()  # type: ignore[operator]
    return network


def _begin(
    config: TrainConfig,
    directory: pathlib.Path,
    trainer: Trainer,
    data: Dataset,
    world: World,
    command: str,
) -> None:
    """Load the checkpoint, or with force clear the directory, and write the config and spoiled labels."""
    if not config.force:
        # By the store that saves later: it is not to keep a damaged checkpoint in the place of a good one.
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
    )
    if world.is_main:
        write_result(directory, result)
        trainer.store.drop_previous()
    return result


def _trainer(
    config: TrainConfig,
    directory: pathlib.Path,
    data: Dataset,
    network: nn.Module,
    device: torch.device,
    world: World,
    stop: StopRequest,
) -> Trainer:
    precision = Precision(config.runtime.precision, device)
    called = _called(config, network, world)
    batches = build_data.train_batches(config, data, device, world)
    m = build_data.micro_batch_size(config, world)
    # Without epochs nothing reads the schedules, but they have to be made: as for one.
    num_steps = max(1, config.epochs) * batches.steps_per_epoch
    loggers = build.loggers(config, directory, batches.steps_per_epoch) if world.is_main else []
    return Trainer(
        model=network,
        update=build.update(config, network, called, precision, m=m, num_steps=num_steps),
        batches=batches,
        evaluate=_evaluation(config, data, network, device, world),
        epochs=config.epochs,
        base_lr=config.optimizer.lr,
        store=CheckpointStore(directory),
        loggers=loggers,
        world=world,
        device=device,
        checkpoint_seconds=60 * config.runtime.checkpoint_minutes,
        stop_requested=stop.is_set,
        inspect=_schedule(config, directory, data, network, device),
    )


def _schedule(
    config: TrainConfig, directory: pathlib.Path, data: Dataset, network: nn.Module, device: torch.device
) -> Callable[[int], None] | None:
    """Return what analyses the network after the epochs that the config names; None for no analysis."""
    wanted = config.analysis
    if wanted.name == "none":
        return None

    def inspect(epoch: int) -> None:
        if epoch % wanted.every and epoch not in (1, config.epochs):
            return
        subject = Subject(config, directory, data, network, Moment(epoch, 0), device)
        try:
            analyse(wanted, subject, say)
        except (ConfigError, torch.OutOfMemoryError) as error:  # is no reason to lose the training
            say(f"warning: epoch {epoch} is not analysed: {error}")

    return inspect


def _evaluation(
    config: TrainConfig, data: Dataset, network: nn.Module, device: torch.device, world: World
) -> Callable[[], Evaluation]:
    """Return what evaluates the network on the test split, shared by all processes."""
    return partial(
        evaluate,
        network,
        build_data.evaluation_batches(config, data, data.test, device, world),
        num_classes=data.num_classes,
        device=device,
        precision=Precision(config.runtime.precision, device),
        world=world,
    )


def _called(config: TrainConfig, network: nn.Module, world: World) -> nn.Module:
    """Return what is called in the place of the network: compiled, sharded or wrapped as the config says."""
    called: nn.Module = network
    if config.runtime.compile:
        called = torch.compile(called)  # type: ignore[assignment]
    if config.runtime.parallel == "ddp":
        return data_parallel(called) if world.size > 1 else called
    if world.size == 1:
        raise ConfigError(
            "runtime.parallel=fsdp shards the weights over processes, and this is one; say "
            "runtime.processes=2, or runtime.parallel=ddp"
        )
    shard(network, world.size)
    return called


@contextmanager
def _workers_ended() -> Iterator[None]:
    """End the workers that read files, however a run ends."""
    try:
        yield
    finally:
        end_workers()
