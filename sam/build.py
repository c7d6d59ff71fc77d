"""The bridge from config to objects: names in, model, optimizer, rule and loggers out (build_data.py: data).

Mistakes in files and values that show only here become a ConfigError.
"""

import os
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from sam.config import (
    MODEL_OPTIONS,
    ConfigError,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    leaves,
    user_errors,
)
from sam.data.images import Dataset
from sam.logs.console import ConsoleLog
from sam.logs.csv_log import CsvLog
from sam.logs.tensorboard import TensorBoardLog
from sam.models.cifar_resnet import CifarResNet
from sam.models.gates import Gate, set_true_gradient
from sam.models.pyramidnet import PyramidNet
from sam.models.shake_shake import ShakeShakeNet
from sam.models.timm_network import TimmNetwork
from sam.models.wide_cifar_resnet import WideCifarResNet
from sam.models.wide_resnet import WideResNet
from sam.optim import SAM
from sam.optim.schedule import Ascents
from sam.run_directory import science
from sam.training.forward_backward import ForwardBackward
from sam.training.look_sam import OrthogonalReuse
from sam.training.loop import Logger
from sam.training.precision import Precision
from sam.training.rule import Rule, SAMRule, SGDRule
from sam.training.running_statistics import RunningStatistics
from sam.training.second_order import SecondOrderSAMRule
from sam.training.update import Update

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "cifar_resnet": CifarResNet,
    "wide_cifar_resnet": WideCifarResNet,
    "wide_resnet": WideResNet,
    "shake_shake": ShakeShakeNet,
    "pyramidnet": PyramidNet,
    "timm": TimmNetwork,
}
# In TensorBoard's table of every run, besides the keys that depart from their defaults.
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


def device(name: str, precision: str = "fp32", key: str = "runtime.device") -> torch.device:
    """Return the device that a config names; auto is the GPU if there is one.

    Under torchrun each process takes the GPU of its local rank.
    """
    gpu = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    chosen = {"auto": gpu if torch.cuda.is_available() else "cpu", "cuda": gpu}.get(name, name)
    try:
        where = torch.device(chosen)
        torch.empty(0, device=where)
        usable = where.type in ("cpu", "cuda")
    except (RuntimeError, AssertionError):
        usable = False
    if not usable:
        raise ConfigError(
            f"{key}={name}: not usable here; allowed is auto, cpu, or cuda where there is a GPU"
        )
    if precision == "tf32" and where.type != "cuda":
        raise ConfigError(
            f"runtime.precision=tf32 needs a GPU, and the device is {where}; use runtime.precision=fp32"
        )
    return where


def model(config: ModelConfig, data: Dataset, where: torch.device) -> nn.Module:
    """Return a freshly drawn network in training mode; draws come from torch's global generator."""
    with user_errors(f"model={config.name}"):
        network = ARCHITECTURES[config.architecture](
            in_channels=data.num_channels,
            num_classes=data.num_classes,
            **{option: getattr(config, option) for option in MODEL_OPTIONS[config.architecture]},
        )
        if isinstance(network, TimmNetwork):
            network.check(*data.train.shape[:2])
    return network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def update(
    config: TrainConfig,
    network: nn.Module,
    called: nn.Module,
    precision: Precision,
    *,
    m: int | None,
    num_steps: int,
) -> Update:
    """Return optimizer, rule and update of a run.

    Args:
        config: Of the run.
        network: Holds the parameters and buffers.
        called: What is called to get logits: the network itself, compiled, or wrapped.
        precision: Of the passes.
        m: Images of this process in a micro-batch; None means all it has.
        num_steps: Updates of the whole run.
    """
    chosen = config.optimizer
    in_loss = chosen.weight_decay_in == "loss"
    forward_backward = ForwardBackward(
        called,
        precision,
        RunningStatistics(network),
        label_smoothing=config.label_smoothing,
        weight_decay_in_loss=chosen.weight_decay if in_loss else 0.0,
    )
    base: dict[str, Any] = {
        "lr": chosen.lr,
        "momentum": chosen.momentum,
        "nesterov": chosen.nesterov,
        "weight_decay": 0.0 if in_loss else chosen.weight_decay,
    }
    with user_errors("optimizer"):
        rule = _rule(chosen, network, forward_backward, base, num_steps)
    return Update(rule, forward_backward, m, chosen.clip_norm)


def _rule(
    chosen: OptimizerConfig,
    network: nn.Module,
    forward_backward: ForwardBackward,
    base: dict[str, Any],
    num_steps: int,
) -> Rule:
    """Return the rule that a config names, around SGD with the given arguments."""
    if chosen.name == "sgd":
        return SGDRule(forward_backward, torch.optim.SGD(network.parameters(), **base))
    # Setting it walks over all layers in every micro-batch: only where there is a gate to set.
    gated = any(isinstance(layer, Gate) for layer in network.modules())
    passes: dict[str, Any] = {
        "true_gradient": partial(set_true_gradient, network) if gated and chosen.true_gradient else None,
        "replay": chosen.replay,
    }
    if chosen.second_order:
        sgd = torch.optim.SGD(network.parameters(), **base)
        return SecondOrderSAMRule(forward_backward, sgd, rho=chosen.rho, **passes)
    sam = SAM(
        _groups(chosen, network),
        torch.optim.SGD,
        rho=chosen.rho,
        adaptive=chosen.adaptive,
        p=chosen.p,
        random_direction=chosen.direction == "random",
        **base,
    )
    return SAMRule(
        forward_backward,
        sam,
        **passes,
        ascent_steps=chosen.ascent_steps,
        ascent_step_size=chosen.ascent_step_size,
        ascent_fraction=chosen.ascent_fraction,
        ascents=Ascents.between(chosen.start, chosen.stop, num_steps, chosen.interval),
        reuse=OrthogonalReuse(sam, chosen.reuse) if chosen.reuse else None,
        sync_ascent=chosen.sync_ascent,
    )


def _groups(chosen: OptimizerConfig, network: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters in one group, or with perturb=norm those that eps leaves alone in another.

    Raises:
        ValueError: If the network has no normalisation layer to perturb.
    """
    if chosen.perturb == "all":
        return [{"params": list(network.parameters())}]
    layers = [layer for layer in network.modules() if "norm" in type(layer).__name__.lower()]
    norm = {weight for layer in layers for weight in layer.parameters(recurse=False)}
    if not norm:
        raise ValueError("perturb=norm: this model has no normalisation layer with weights; use perturb=all")
    others = [weight for weight in network.parameters() if weight not in norm]
    return [
        {"params": [weight for weight in network.parameters() if weight in norm]},
        {"params": others, "perturbed": False},
    ]


def loggers(config: TrainConfig, directory: pathlib.Path, steps_per_epoch: int) -> list[Logger]:
    """Return the loggers of the main process."""
    validation = config.dataset.validation
    label = "/".join(directory.parts[-5:-1]) + f" seed {config.seed}"
    return [
        CsvLog(directory / "metrics.csv"),
        TensorBoardLog(directory / "tensorboard", _hyperparameters(config), directory / "analysis"),
        ConsoleLog(label, config.epochs, steps_per_epoch, "test" if validation == "none" else "validation"),
    ]


def _hyperparameters(config: TrainConfig) -> dict[str, float | str]:
    """Return a row of TensorBoard's table: the usual keys, and those that depart from their defaults."""
    chosen = {key: value for key, value, _ in leaves(config) if key in USUAL_KEYS} | science(config)
    return {
        key: value if isinstance(value, (int, float, str)) else str(value) for key, value in chosen.items()
    }
