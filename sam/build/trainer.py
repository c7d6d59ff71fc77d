"""From a config to a trainer: network, update, batches, evaluation and loggers put together."""

import pathlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from sam.build.data import make_train_batches
from sam.build.evaluation import make_evaluation
from sam.build.network import compiled
from sam.build.resolved import Resolved
from sam.build.update import make_update, tell_eager
from sam.config.optimizer import OptimizerConfig
from sam.config.runtime import RuntimeConfig
from sam.config.schema import TrainConfig, config_items
from sam.data.images import Dataset
from sam.logs.console import ConsoleLog
from sam.logs.csv_log import CsvLog
from sam.logs.tensorboard import TensorBoardLog
from sam.logs.tracker import TrackerLog, import_tracker
from sam.logs.trouble import TroubleLog
from sam.optim.schedule import cosine
from sam.record.identity import deciding_keys
from sam.system.errors import ConfigError
from sam.training.checkpoint import CheckpointStore
from sam.training.distributed import World, data_parallel
from sam.training.interfaces import Logger
from sam.training.loop import Trainer
from sam.training.sharding import shard
from sam.training.update import Update
from sam.training.weight_average import WeightAverage

# Keys that TensorBoard's table shows for every run, in addition to those that differ from their defaults.
USUAL_KEYS = (
    "dataset.name",
    "model.name",
    "augmentation.name",
    "optimizer.name",
    "optimizer.lr",
    "optimizer.weight_decay",
    "optimizer.rho",
    "epochs",
    "batch_size",
    "m",
    "seed",
)


def make_loggers(
    config: TrainConfig, directory: pathlib.Path, train_targets: Tensor, steps_per_epoch: int, is_main: bool
) -> list[Logger]:
    """Return the loggers of a process: none unless it is the main one."""
    if config.logger != "tensorboard":
        import_tracker(config.logger)  # in all processes, so that all end with the error
    if not is_main:
        return []
    split = "test" if config.dataset.validation == "none" else "validation"
    split += "" if config.ema_decay is None else " (EMA)"
    label = "/".join(directory.parts[-5:-1]) + f" seed {config.seed}"
    settings = _hyperparameters(config)
    loggers: list[Logger] = [
        CsvLog(directory / "metrics.csv"),
        TensorBoardLog(directory / "tensorboard", settings, directory / "analysis"),
        ConsoleLog(label, config.epochs, steps_per_epoch, split),
        TroubleLog(label, _chance_pct(train_targets), _advice(config.optimizer)),
    ]
    if config.logger != "tensorboard":
        loggers.append(TrackerLog(config.logger, config.dataset.name, label, settings))
    return loggers


def _chance_pct(targets: Tensor) -> float:
    """Return the error of always predicting the most frequent class, in percent."""
    return 100 - 100 * float(targets.bincount().max()) / len(targets)


def _advice(optimizer: OptimizerConfig) -> str:
    """Return what to change in a run that learns nothing."""
    if optimizer.name == "sam" and optimizer.rho > 0:
        return f"try optimizer.rho below {optimizer.rho:g} or optimizer.lr below {optimizer.lr:g}"
    return f"try optimizer.lr below {optimizer.lr:g}"


def _hyperparameters(config: TrainConfig) -> dict[str, float | str]:
    """Return a row of TensorBoard's table: the usual keys, and those that differ from their defaults."""
    usual = {key: value for key, value, _ in config_items(config) if key in USUAL_KEYS}
    chosen = usual | deciding_keys(config)
    return {
        key: value if isinstance(value, (int, float, str)) else str(value) for key, value in chosen.items()
    }


def make_trainer(
    config: TrainConfig,
    directory: pathlib.Path,
    data: Dataset,
    network: nn.Module,
    resolved: Resolved,
    world: World,
    stop_requested: Callable[[], bool],
    inspect: Callable[[int], None] | None,
    average: WeightAverage | None,
) -> Trainer:
    """Return the trainer of a run.

    Args:
        config: The run's config.
        directory: The run's directory.
        data: The dataset, with the labels to train on.
        network: The network, which is trained in place.
        resolved: What the config means for this process.
        world: The processes that share the run.
        stop_requested: Called after every update; if it returns True, the training saves and ends.
        inspect: Called with the number of complete epochs; None for no analysis.
        average: The moving average of the network's weights, which is evaluated; None for no average.
    """
    batches = make_train_batches(config, data, resolved)
    loggers = make_loggers(config, directory, data.train.targets, batches.steps_per_epoch, world.is_main)
    # With epochs=0 nothing reads the schedules, but they must be valid: use those of one epoch.
    num_steps = max(1, config.epochs) * batches.steps_per_epoch
    evaluated = network if average is None else average.network
    return Trainer(
        model=network,
        update=_update(config, network, resolved, world, num_steps),
        batches=batches,
        evaluate=make_evaluation(config.model, data, data.test, evaluated, resolved, world),
        epochs=config.epochs,
        lr_at=_lr_at(config.optimizer, num_steps, batches.steps_per_epoch),
        store=CheckpointStore(directory),
        loggers=loggers,
        world=world,
        device=resolved.device,
        checkpoint_seconds=60 * config.runtime.checkpoint_minutes,
        stop_requested=stop_requested,
        inspect=inspect,
        keep_weights_every=config.runtime.keep_weights_every,
        average=average,
    )


def _update(
    config: TrainConfig, network: nn.Module, resolved: Resolved, world: World, num_steps: int
) -> Update:
    """Return the update of a run, after telling the user if it is eager on a GPU."""
    if resolved.why_eager:
        tell_eager(resolved, resolved.why_eager)
    called, unsynced = _wrapped(config.runtime, network, resolved, world)
    return make_update(
        config.optimizer,
        network,
        called,
        resolved,
        num_steps=num_steps,
        label_smoothing=config.label_smoothing,
        unsynced=unsynced,
        world=world,
    )


def _lr_at(optimizer: OptimizerConfig, num_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the schedule of the learning rate."""
    num_warm_up_steps = min(round(optimizer.warmup_epochs * steps_per_epoch), num_steps - 1)
    return lambda step: optimizer.lr * cosine(step, num_steps, num_warm_up_steps)


def _wrapped(
    runtime: RuntimeConfig, network: nn.Module, resolved: Resolved, world: World
) -> tuple[nn.Module, Callable[[], AbstractContextManager[object]] | None]:
    """Return the module to call instead of the network: compiled, sharded or wrapped as the config says.

    Returns:
        The module, and its no_sync(), a context without gradient exchange; None if it has no such context.
    """
    called = compiled(network, runtime)
    if runtime.parallel == "ddp":
        if world.size == 1:
            return called, None
        if resolved.graph != "false":
            return called, nullcontext  # Replay exchanges gradients, once per update
        replica = data_parallel(called)
        return replica, replica.no_sync
    if world.size == 1:
        raise ConfigError(
            "runtime.parallel=fsdp shards the weights over processes, and this is one; say "
            "runtime.processes=2, or runtime.parallel=ddp"
        )
    shard(network, world.size)
    return called, None
