"""From a config to a network on its device."""

from collections.abc import Callable

import torch
from torch import nn

from sam.build.resolved import Resolved
from sam.config.model import MODEL_OPTIONS, ModelConfig
from sam.config.runtime import RuntimeConfig
from sam.config.schema import TrainConfig
from sam.data.batches import generator_for
from sam.data.images import Dataset
from sam.models.cifar_resnet import CifarResNet
from sam.models.pyramidnet import PyramidNet
from sam.models.shake_shake import ShakeShakeNet
from sam.models.timm_network import TimmNetwork
from sam.models.wide_cifar_resnet import WideCifarResNet
from sam.models.wide_resnet import WideResNet
from sam.system.errors import user_errors
from sam.training.weight_average import WeightAverage

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "cifar_resnet": CifarResNet,
    "wide_cifar_resnet": WideCifarResNet,
    "wide_resnet": WideResNet,
    "shake_shake": ShakeShakeNet,
    "pyramidnet": PyramidNet,
    "timm": TimmNetwork,
}


def make_network(config: ModelConfig, data: Dataset, where: torch.device) -> nn.Module:
    """Return a new network in training mode, initialised from torch's global generator."""
    with user_errors(f"model={config.name}"):
        network = ARCHITECTURES[config.architecture](
            in_channels=data.num_channels,
            num_classes=data.num_classes,
            **{option: getattr(config, option) for option in MODEL_OPTIONS[config.architecture]},
        )
        if isinstance(network, TimmNetwork):
            network.check(*data.train.shape[:2])
    return network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def compiled(network: nn.Module, runtime: RuntimeConfig) -> nn.Module:
    """Return the module to call instead of the network: the network, compiled if the config says so."""
    if not runtime.compile:
        return network
    # deterministic: torch.use_deterministic_algorithms() sets it too, but for the calling thread only, and on
    # GPUs backward passes run in another one.
    options = {"deterministic": True} if runtime.deterministic else None
    called: nn.Module = torch.compile(network, options=options)  # type: ignore[assignment, arg-type]
    return called


def draw_network(config: TrainConfig, data: Dataset, resolved: Resolved) -> nn.Module:
    """Initialise the network, the same in all processes; then seed each process with its own seed."""
    torch.manual_seed(config.seed)
    if config.model.init_seed is None:
        network = make_network(config.model, data, resolved.device)
    else:
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed(): it also seeds the GPUs, whose draws must depend on the run's seed.
            torch.default_generator.manual_seed(config.model.init_seed)
            network = make_network(config.model, data, resolved.device)
    if not resolved.process.is_main:
        torch.manual_seed(generator_for("process", config.seed, resolved.process.rank).initial_seed())
    if config.runtime.grad_checkpointing:
        with user_errors("runtime.grad_checkpointing=true"):
            network.set_grad_checkpointing()  # type: ignore[operator]
    return network


def weight_average(config: TrainConfig, network: nn.Module) -> WeightAverage | None:
    """Return the moving average of a new network's weights; None if the config has none."""
    return None if config.ema_decay is None else WeightAverage(network, config.ema_decay)
