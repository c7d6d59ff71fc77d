"""Tests of sam/models/timm_network.py; test_timm_weights.py tests files of weights."""

import pathlib
import re
import socket
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from sam.models.timm_network import TimmNetwork, pretrained_statistics
from sam.optim.running_statistics import RunningStatistics


def network(timm_name: str = "test_efficientnet", seed: int = 0, **options: Any) -> TimmNetwork:
    torch.manual_seed(seed)
    return TimmNetwork(**{"timm_name": timm_name, "in_channels": 3, "num_classes": 10, **options})


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def calls_of_a_norm(model: nn.Module) -> list[None]:
    """Return a list that gets an entry each time a batch norm in the middle of the network runs."""
    calls: list[None] = []
    found = norms(model)
    found[len(found) // 2].register_forward_hook(lambda *_: calls.append(None))
    return calls


# ResNets: torchvision's documentation. EfficientNets: 66 M and 480 M in their papers, digits in timm's table.
@pytest.mark.parametrize(
    ("timm_name", "millions"),
    [
        ("resnet50", 25.56),
        ("resnet101", 44.55),
        ("resnet152", 60.19),
        ("tf_efficientnet_b7.ra_in1k", 66.35),
        ("tf_efficientnet_l2.ns_jft_in1k_475", 480.31),
        ("tf_efficientnet_lite0", 4.65),
    ],
)
def test_timm_network_has_the_published_number_of_parameters(timm_name: str, millions: float) -> None:
    with torch.device("meta"):
        model = network(timm_name, num_classes=1000)
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(millions * 1e6, abs=5e3)


def test_resnet50_is_the_one_of_the_released_code() -> None:
    model = network("resnet50").network
    first = [getattr(model, f"layer{stage}")[0] for stage in (2, 3, 4)]
    assert [block.conv1.stride for block in first] == [(1, 1)] * 3
    assert [block.conv2.stride for block in first] == [(2, 2)] * 3
    blocks = [block for stage in (1, 2, 3, 4) for block in getattr(model, f"layer{stage}")]
    assert len(blocks) == 16
    assert not any(block.bn3.weight.count_nonzero() for block in blocks)


@pytest.mark.parametrize("timm_name", ["tf_efficientnet_b0", "resnet10t"])
def test_timm_network_has_no_dropout(timm_name: str) -> None:
    model = network(timm_name, freeze_statistics=True)
    images = torch.randn(2, 3, 32, 32)
    # With equal statistics in both modes, only dropout could make a difference.
    assert torch.equal(model.train()(images), model.eval()(images))


@pytest.mark.parametrize(("decay", "weight"), [(None, 0.9), (0.99, 0.99), (0.0, 0.0)])
def test_timm_network_averages_its_statistics_with_the_decay(decay: float | None, weight: float) -> None:
    model = network("resnet10t", batch_norm_decay=decay)
    inputs: list[torch.Tensor] = []
    model.network.bn1.register_forward_hook(lambda _, args, __: inputs.append(args[0].detach()))
    model.train()(torch.randn(4, 3, 32, 32))
    # The running mean begins at 0.
    mean = (1 - weight) * inputs[0].mean((0, 2, 3))
    torch.testing.assert_close(model.network.bn1.running_mean, mean, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("in_channels", [1, 3])
def test_timm_network_without_weights_is_what_timm_makes(in_channels: int) -> None:
    model = network(in_channels=in_channels)
    torch.manual_seed(0)
    wanted = timm.create_model("test_efficientnet", in_chans=in_channels, num_classes=10)
    images = torch.randn(4, in_channels, 24, 24)
    assert torch.equal(model(images), wanted(images))
    assert model.training


def test_timm_network_suggests_names_similar_to_an_unknown_one() -> None:
    with pytest.raises(ValueError, match="^timm_name=resnet51 is unknown to timm; similar names") as caught:
        network("resnet51")
    near, command = str(caught.value).split("similar names are ")[1].split("; to list all: ")
    assert len(near.split(", ")) == 5
    assert "resnet50" in near.split(", ")
    assert command == """python -c "import timm; print(*timm.list_models(), sep='\\n')\""""


@pytest.mark.parametrize("timm_name", ["hf-hub:timm/resnet50", "timm/resnet50", "", "."])
def test_timm_network_takes_no_names_from_elsewhere(timm_name: str) -> None:
    with pytest.raises(ValueError, match=f"^timm_name={timm_name} is unknown to timm; similar names are "):
        network(timm_name)


def test_timm_network_names_the_tags_of_a_network() -> None:
    message = (
        r"^timm_name=tf_efficientnet_b7.nope: timm has no weights nope for tf_efficientnet_b7; allowed are "
        r".*tf_efficientnet_b7.ra_in1k"
    )
    for call in (network, pretrained_statistics):
        with pytest.raises(ValueError, match=message):
            call("tf_efficientnet_b7.nope")
    with pytest.raises(ValueError, match="^timm_name=resnet10t.nope: .*; allowed are "):
        network("resnet10t.nope")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """Cut the hub's client off, and let it find test_efficientnet alone in its cache; return the weights."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--timm--test_efficientnet.r160_in1k"
    revision = "0" * 40
    path = repository / "snapshots" / revision / "model.safetensors"
    for folder in (path.parent, repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    torch.manual_seed(1)
    safetensors.torch.save_file(timm.create_model("test_efficientnet").state_dict(), path)
    return path


@pytest.mark.parametrize("num_classes", [10, 1000])
@pytest.mark.parametrize("timm_name", ["test_efficientnet", "test_efficientnet.r160_in1k"])
def test_timm_network_from_the_hub_is_that_from_its_file(
    timm_name: str, num_classes: int, hub: pathlib.Path
) -> None:
    fresh = network(timm_name, num_classes=num_classes).state_dict()
    models = [network(timm_name, num_classes=num_classes, weights=source) for source in ("hub", str(hub))]
    first, second = (model.state_dict() for model in models)
    trained = safetensors.torch.load_file(hub)
    assert list(first) == list(second) == list(fresh)
    for name in first:
        assert torch.equal(first[name], second[name])
        if num_classes == 1000 or "classifier" not in name:
            assert torch.equal(first[name], trained[name.removeprefix("network.")])


def test_timm_network_draws_a_fresh_head_as_torch_does_and_not_within_one_over_root_classes(
    hub: pathlib.Path,
) -> None:
    head = network("test_efficientnet", num_classes=10, weights="hub").network.get_classifier()
    num_inputs = head.in_features
    # Uniform within 1 / sqrt(inputs): the largest of 2560 draws is within 1 % of the bound, except in 1e-11.
    assert 0.99 / num_inputs**0.5 < head.weight.abs().max() <= 1 / num_inputs**0.5
    own = network("test_efficientnet", num_classes=10).network.get_classifier()
    assert own.weight.abs().max() > 3 * head.weight.abs().max()


def test_timm_network_says_what_to_do_without_a_hub(hub: pathlib.Path) -> None:
    message = (
        r"^weights=hub: timm could not download test_resnet \(.+\); name a file .* with model.weights=PATH"
    )
    with pytest.raises(OSError, match=message):
        network("test_resnet", weights="hub")


def test_timm_network_says_that_the_hub_has_no_weights(hub: pathlib.Path) -> None:
    message = r"^weights=hub: timm could not download cs3darknet_s \(No pretrained weights exist for cs3"
    with pytest.raises(OSError, match=message):
        network("cs3darknet_s", weights="hub")


@pytest.mark.parametrize("source", ["hub", "file"])
def test_timm_network_refuses_weights_for_other_channels(source: str, hub: pathlib.Path) -> None:
    message = {
        "hub": "^weights=hub: the weights of test_efficientnet expect images with 3 channels, "
        "the images have 1; use model.weights=null$",
        "file": "it was trained on 3 input channels, not 1$",
    }[source]
    with pytest.raises(ValueError, match=message):
        network(in_channels=1, weights="hub" if source == "hub" else str(hub))


def test_timm_network_uses_the_internet_only_for_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("reached for the internet")

    for name in ("socket", "getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    path = tmp_path / "weights.pth"
    torch.save(network("tf_efficientnet_lite0").network.state_dict(), path)
    network("tf_efficientnet_lite0", weights=str(path))
    pretrained_statistics("tf_efficientnet_b7.ra_in1k")


@pytest.mark.parametrize("timm_name", ["test_efficientnet", "test_resnet"])
@pytest.mark.parametrize("frozen", [True, False])
def test_timm_network_freezes_statistics_and_nothing_else(timm_name: str, frozen: bool) -> None:
    model = network(timm_name, freeze_statistics=frozen)
    moving = dict(model.named_buffers())
    before = {name: buffer.clone() for name, buffer in moving.items()}
    images = torch.randn(4, 3, 32, 32)
    for start in (model, model.eval().train()):
        start(images).square().sum().backward()
    assert all(torch.equal(before[name], buffer) == frozen for name, buffer in moving.items())
    learning = [norm.weight.grad for norm in norms(model)] + [norm.bias.grad for norm in norms(model)]
    assert all(grad is not None and bool(grad.count_nonzero()) for grad in learning[-2:])
    switched = [module for module in model.modules() if not module.training]
    assert bool(switched) == frozen
    assert all(hasattr(module, "running_var") for module in switched)
    assert not any(module.training for module in model.eval().modules())


def test_timm_network_frozen_normalises_as_in_evaluation() -> None:
    model = network(freeze_statistics=True)
    for norm in norms(model):
        nn.init.uniform_(norm.running_mean, -0.1, 0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    images = torch.randn(4, 3, 24, 24)
    logits = model(images)
    torch.testing.assert_close(model(images[:1]), logits[:1], rtol=0, atol=1e-6)
    assert torch.equal(model.eval()(images), logits)


@pytest.mark.parametrize("shape", [(32, 32), (40, 24), (64, 64), (48, 48)])
def test_timm_network_resizes_images(shape: tuple[int, int]) -> None:
    plain, resizing = network().eval(), network(input_size=48).eval()
    images = torch.randn(2, 3, *shape).to(memory_format=torch.channels_last)
    seen: list[Tensor] = []
    resizing.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = resizing(images)
    wanted = functional.interpolate(images, (48, 48), mode="bicubic", antialias=True)
    assert torch.equal(logits, plain(wanted))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert (seen[0] is images) == (shape == (48, 48))


def test_timm_network_resizes_as_pillow_does() -> None:
    model = network(input_size=24)
    seen: list[Tensor] = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    plane = torch.rand(60, 60)
    model(plane.expand(2, 3, 60, 60))
    picture = Image.fromarray(plane.numpy()).resize((24, 24), Image.Resampling.BICUBIC)
    wanted = torch.from_numpy(np.array(picture))
    torch.testing.assert_close(seen[0][0, 0], wanted, rtol=0, atol=1e-5)


def test_timm_network_of_one_image_size_says_so() -> None:
    images = torch.randn(2, 3, 32, 32)
    message = re.escape(
        "test_vit takes images of 160 pixels a side, got 32 x 32; resize them with model.input_size=160"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        network("test_vit")(images)
    assert network("test_vit")(torch.randn(2, 3, 160, 160)).shape == (2, 10)
    # With another input size, the network has fewer position embeddings: 1 for the class and 2 x 2.
    smaller = network("test_vit", input_size=32)
    assert smaller.network.pos_embed.shape[1] == 5
    assert smaller(images).shape == (2, 10)


@pytest.mark.parametrize(
    ("timm_name", "mean", "std"),
    [
        ("tf_efficientnet_b7.ra_in1k", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("resnet50", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("tf_efficientnet_lite0", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("vit_small_patch16_224.augreg_in1k", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_pretrained_statistics_are_those_of_the_weights(
    timm_name: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    assert pretrained_statistics(timm_name) == (mean, std)


@pytest.mark.parametrize("timm_name", ["test_efficientnet", "test_resnet"])
def test_timm_network_with_checkpointing_has_the_same_gradients(timm_name: str) -> None:
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    grads = []
    for flag in (False, True):
        model = network(timm_name).double()
        model.set_grad_checkpointing(flag)
        model(images).square().sum().backward()
        grads.append([weight.grad for weight in model.parameters()])
    for plain, checkpointed in zip(*grads):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-12, atol=0)


@pytest.mark.parametrize("timm_name", ["test_efficientnet", "test_resnet"])
def test_running_statistics_move_once_although_checkpointing_runs_norms_twice(timm_name: str) -> None:
    parts = torch.randn(2, 4, 3, 32, 32, dtype=torch.float64)
    moved = []
    for flag in (False, True):
        model = network(timm_name).double()
        model.set_grad_checkpointing(flag)
        calls = calls_of_a_norm(model)
        statistics = RunningStatistics(model)
        statistics.begin()
        for part in parts:
            statistics.begin_micro_batch()
            loss = model(part).square().sum()
            statistics.keep()
            loss.backward()
        statistics.write()
        assert len(calls) == len(parts) * (2 if flag else 1)
        moved.append(dict(model.named_buffers()))
    for name, buffer in moved[0].items():
        assert torch.equal(buffer, moved[1][name])
        assert not name.endswith("num_batches_tracked") or int(buffer) == 1


def test_timm_network_stops_checkpointing_and_evaluates_with_it() -> None:
    model = network()
    images = torch.randn(2, 3, 24, 24)
    calls = calls_of_a_norm(model)
    model.set_grad_checkpointing()
    model.set_grad_checkpointing(False)
    model(images).sum().backward()
    assert len(calls) == 1
    with torch.no_grad():
        logits = model.eval()(images)
        model.set_grad_checkpointing()
        assert torch.equal(model(images), logits)


def test_timm_network_says_that_timm_cannot_checkpoint_it() -> None:
    with torch.device("meta"):
        model = network("vgg11")
    message = "timm has no gradient checkpointing for vgg11; use runtime.grad_checkpointing=false"
    with pytest.raises(ValueError, match=f"^{message}$"):
        model.set_grad_checkpointing()
