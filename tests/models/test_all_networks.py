"""Tests of all networks with all options. The other files test their numbers of parameters."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sam.models.cifar_resnet import CifarResNet
from sam.models.layers import initialise
from sam.models.pyramidnet import PyramidNet
from sam.models.shake_shake import ShakeShakeNet
from sam.models.timm_network import TimmNetwork
from sam.models.wide_cifar_resnet import WideCifarResNet
from sam.models.wide_resnet import WideResNet

# Architecture and options of tiny networks; depth and width come first if there are any.
NETWORKS: dict[str, tuple[Callable[..., nn.Module], dict[str, object]]] = {
    "resnet": (CifarResNet, {"depth": 14, "width": 4}),
    "resnet without skips": (CifarResNet, {"depth": 14, "width": 4, "skip": False}),
    "wide resnet": (WideResNet, {"depth": 16, "width": 1}),
    "wide resnet conv": (WideResNet, {"depth": 16, "width": 2, "shortcut": "conv"}),
    "wide resnet without norms": (WideResNet, {"depth": 16, "width": 1, "batch_norm": False}),
    "wide resnet conv without norms": (
        WideResNet,
        {"depth": 16, "width": 2, "shortcut": "conv", "batch_norm": False},
    ),
    "wide cifar resnet": (WideCifarResNet, {"depth": 14, "width": 4}),
    "shake shake": (ShakeShakeNet, {"depth": 14, "width": 4}),
    "pyramidnet": (PyramidNet, {"depth": 20, "width": 4, "alpha": 6}),
    "pyramidnet shakedrop": (PyramidNet, {"depth": 20, "width": 4, "alpha": 6, "shakedrop": True}),
    "timm efficientnet": (TimmNetwork, {"timm_name": "test_efficientnet"}),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
every_network_of_ours = pytest.mark.parametrize("name", [name for name in NETWORKS if "timm" not in name])


def make(name: str, in_channels: int = 3, num_classes: int = 10, **more: object) -> nn.Module:
    architecture, options = NETWORKS[name]
    torch.manual_seed(0)
    return architecture(**options, in_channels=in_channels, num_classes=num_classes, **more)


def untouched(model: nn.Module) -> list[str]:
    """Return the names of the parameters without a gradient."""
    parameters = model.named_parameters()
    return [name for name, weight in parameters if weight.grad is None or not weight.grad.count_nonzero()]


@every_network
@pytest.mark.parametrize(
    ("in_channels", "size", "num_classes"), [(3, 32, 10), (1, 28, 10), (3, 9, 2), (3, 30, 100)]
)
def test_network_maps_images_to_logits(name: str, in_channels: int, size: int, num_classes: int) -> None:
    model = make(name, in_channels, num_classes)
    for mode in (True, False):
        logits = model.train(mode)(torch.randn(2, in_channels, size, size))
        assert logits.shape == (2, num_classes)
        assert bool(logits.isfinite().all())


@every_network
@pytest.mark.parametrize("in_channels", [1, 3])
def test_network_keeps_channels_last_through_every_block(name: str, in_channels: int) -> None:
    model = make(name, in_channels).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kept: dict[str, bool] = {}
    for path, module in model.named_modules():

        def record(_: nn.Module, __: object, output: Tensor, path: str = path) -> None:
            if output.ndim == 4:  # other outputs are features and logits
                kept[path] = output.is_contiguous(memory_format=torch.channels_last)

        module.register_forward_hook(record)
    model(torch.randn(2, in_channels, 16, 16).to(memory_format=torch.channels_last))
    assert len(kept) > 20
    assert all(kept.values()), kept


@every_network
def test_network_gradient_reaches_every_parameter(name: str) -> None:
    model = make(name)
    model(torch.randn(8, 3, 16, 16)).square().sum().backward()
    assert untouched(model) == []


@every_network
def test_network_trains_in_bfloat16_autocast(name: str) -> None:
    model = make(name)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.randn(8, 3, 16, 16))
    assert logits.dtype == torch.bfloat16
    logits.float().square().sum().backward()
    assert untouched(model) == []
    assert all(bool(weight.grad.isfinite().all()) for weight in model.parameters() if weight.grad is not None)


@every_network
def test_network_in_float64_agrees_with_float32(name: str) -> None:
    model = make(name)
    images = torch.randn(4, 3, 16, 16)
    torch.manual_seed(1)
    logits = model(images)
    torch.manual_seed(1)
    precise = model.double()(images.double())
    assert precise.dtype == torch.float64
    # About 20 layers, each rounded to 24 bits. The largest measured difference is 1e-6.
    torch.testing.assert_close(logits.double(), precise, rtol=1e-4, atol=1e-4)


@every_network
def test_network_has_the_same_state_names_on_every_build(name: str) -> None:
    first, second = make(name).state_dict(), make(name).state_dict()
    assert list(first) == list(second)
    assert all(map(torch.equal, first.values(), second.values()))


@every_network
def test_network_has_no_buffers_except_those_of_batch_norm(name: str) -> None:
    model = make(name)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(list(model.buffers())) == 3 * len(norms)
    assert bool(norms) == ("without norms" not in name)


@every_network_of_ours
def test_network_with_init_torch_keeps_what_its_layers_drew(name: str) -> None:
    model = make(name, init="torch")
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5  # torch: uniform within +-1 / sqrt(fan_in)
            drawn = [
                weight.detach().abs().max() for weight in (module.weight, module.bias) if weight is not None
            ]
            assert 0 < min(drawn) <= max(drawn) <= bound


@every_network_of_ours
def test_network_draws_as_the_released_code_by_default_after_its_layers_drew(name: str) -> None:
    initialised = make(name, init="torch")
    initialise(initialised, "released_code", "fan_in" if "without norms" in name else "fan_out")
    for model in (make(name), make(name, init="released_code")):
        assert all(map(torch.equal, model.state_dict().values(), initialised.state_dict().values()))
