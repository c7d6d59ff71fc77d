"""From a config to a network on its device."""

import os
from collections.abc import Callable

import torch
from torch import nn

from sam.config.model import MODEL_OPTIONS, ModelConfig
from sam.config.schema import TrainConfig
from sam.data.batches import generator_for
from sam.data.images import Dataset
from sam.models.cifar_resnet import CifarResNet
from sam.models.pyramidnet import PyramidNet
from sam.models.shake_shake import ShakeShakeNet
from sam.models.timm_network import TimmNetwork
from sam.models.wide_cifar_resnet import WideCifarResNet
from sam.models.wide_resnet import WideResNet
from sam.system.errors import ConfigError, user_errors
from sam.training.distributed import World

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "cifar_resnet": CifarResNet,
    "wide_cifar_resnet": WideCifarResNet,
    "wide_resnet": WideResNet,
    "shake_shake": ShakeShakeNet,
    "pyramidnet": PyramidNet,
    "timm": TimmNetwork,
}


def find_device(name: str, precision: str = "fp32", key: str = "runtime.device") -> torch.device:
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


def make_network(config: ModelConfig, data: Dataset, where: torch.device) -> nn.Module:
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


def draw_network(config: TrainConfig, data: Dataset, device: torch.device, world: World) -> nn.Module:
    """Draw the network, the same in all processes, and seed what they draw later, each for itself."""
    torch.manual_seed(config.seed)
    if config.model.init_seed is None:
        network = make_network(config.model, data, device)
    else:
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed(), which also seeds the GPUs: their draws are the run's.
            torch.default_generator.manual_seed(config.model.init_seed)
            network = make_network(config.model, data, device)
    if not world.is_main:
        torch.manual_seed(generator_for("process", config.seed, world.rank).initial_seed())
    if config.runtime.grad_checkpointing:
        with user_errors("runtime.grad_checkpointing=true"):
            network.set_grad_checkpointing()  # type: ignore[operator]
    return network
