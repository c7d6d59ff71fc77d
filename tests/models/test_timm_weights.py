"""Tests of sam/models/timm_weights.py."""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from sam.models.timm_network import TimmNetwork
from sam.models.timm_weights import COUNTER, load_weights

State = dict[str, Tensor]


def network(
    seed: int, num_classes: int = 10, in_channels: int = 3, name: str = "test_efficientnet"
) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(name, num_classes=num_classes, in_chans=in_channels)
    return model


def trained(**options: Any) -> State:
    """Return weights, running averages and counters that no new network has."""
    model = network(1, **options)
    torch.manual_seed(2)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.0)
        else:
            tensor.fill_(7)
    return model.state_dict()


def foreign(state: State) -> State:
    """Return the same tensors in the same order under other names, as another library would save them."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    parts = {name: name.rpartition(".") for name in state}
    return {f"_{layers.index(parts[name][0]):03}.{parts[name][2]}": tensor for name, tensor in state.items()}


def saved(state: object, folder: pathlib.Path) -> str:
    path = folder / "weights.pth"
    torch.save(state, path)
    return str(path)


def floats(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}


def assert_same(found: State, wanted: State) -> None:
    assert list(found) == list(wanted)
    assert all(map(torch.equal, found.values(), wanted.values()))


LAYOUTS: dict[str, Callable[[State], object]] = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "step": torch.tensor(3)},
    "averaged": lambda state: {
        "state_dict": {name: torch.zeros_like(tensor) for name, tensor in state.items()},
        "state_dict_ema": state,
    },
    "distributed": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "half precision": lambda state: {name: tensor.half() for name, tensor in state.items()},
    "without counters": floats,
    "another order": lambda state: dict(reversed(state.items())),
    "other names": foreign,
    "other names without counters": lambda state: foreign(floats(state)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_load_weights_takes_every_tensor_but_counters(layout: str, tmp_path: pathlib.Path) -> None:
    state = {name: tensor.half().to(tensor.dtype) for name, tensor in trained().items()}
    model = network(0)
    load_weights(model, saved(LAYOUTS[layout](state), tmp_path))
    assert_same(floats(model.state_dict()), floats(state))
    counters = [tensor for name, tensor in model.state_dict().items() if name.endswith(COUNTER)]
    assert len(counters) > 10
    assert not any(counters)


def test_load_weights_reads_safetensors(tmp_path: pathlib.Path) -> None:
    state = trained()
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, path)
    model = network(0)
    load_weights(model, str(path))
    assert_same(floats(model.state_dict()), floats(state))


def test_load_weights_takes_up_a_checkpoint_of_this_project(tmp_path: pathlib.Path) -> None:
    options = {"timm_name": "test_efficientnet", "in_channels": 3, "num_classes": 10}
    torch.manual_seed(1)
    first = TimmNetwork(**options)  # type: ignore[arg-type]
    path = saved({"format": 1, "model": first.state_dict(), "epoch": 2}, tmp_path)
    second = TimmNetwork(**options, weights=path)  # type: ignore[arg-type]
    assert_same(floats(second.state_dict()), floats(first.state_dict()))


def without_head(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}


@pytest.mark.parametrize(
    "change",
    [
        lambda: trained(num_classes=7),
        lambda: foreign(trained(num_classes=7)),
        lambda: without_head(trained()),
        lambda: {name: tensor for name, tensor in trained().items() if name != "classifier.bias"},
    ],
    ids=["another size", "another size and names", "none", "half"],
)
def test_load_weights_leaves_the_head_fresh_where_the_file_has_none_of_its_size(
    change: Callable[[], State], tmp_path: pathlib.Path
) -> None:
    model = network(0)
    load_weights(model, saved(change(), tmp_path))
    found, fresh = floats(model.state_dict()), floats(network(0).state_dict())
    assert_same(without_head(found), floats(without_head(trained())))
    assert list(found)[-2:] == ["classifier.weight", "classifier.bias"]
    for name in list(found)[-2:]:
        assert torch.equal(found[name], fresh[name])


def test_load_weights_leaves_both_heads_of_a_distilled_network_fresh(tmp_path: pathlib.Path) -> None:
    name = "deit_tiny_distilled_patch16_224"
    model, given = network(0, name=name), network(1, name=name, num_classes=7).state_dict()
    load_weights(model, saved(given, tmp_path))
    fresh = network(0, name=name).state_dict()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, (fresh if key.startswith("head") else given)[key])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda: trained(in_channels=1),
            "conv_stem.weight [24, 3, 3, 3] where the file has conv_stem.weight [24, 1, 3, 3]; it "
            "was trained on 1 input channels, not 3",
        ),
        (
            lambda: foreign(trained(in_channels=1)),
            "conv_stem.weight [24, 3, 3, 3] where the file has _000.weight [24, 1, 3, 3]; it was "
            "trained on 1 input channels, not 3",
        ),
        (
            lambda: trained(name="test_resnet"),
            "conv_stem.weight [24, 3, 3, 3] where the file has conv1.0.weight [16, 3, 3, 3]; "
            "choose the model.timm_name with which the file was made",
        ),
        (
            lambda: dict(sorted(foreign(trained()).items())),
            "bn1.weight [24] where the file has _001.bias [24]; choose",
        ),
        (
            lambda: dict(list(foreign(floats(trained())).items())[:-1]),
            "classifier.bias [10] where the file has nothing more; choose",
        ),
        (
            lambda: {**foreign(floats(trained())), "scale.weight": torch.ones(2)},
            "nothing more where the file has scale.weight [2]; choose",
        ),
    ],
    ids=["channels", "channels and names", "network", "order", "too few", "too many"],
)
def test_load_weights_refuses_those_of_another_network(
    change: Callable[[], State], message: str, tmp_path: pathlib.Path
) -> None:
    path = saved(change(), tmp_path)
    model = network(0)
    expected = f"weights={path} is for another network: this one has {message}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        load_weights(model, path)
    assert_same(model.state_dict(), network(0).state_dict())


def test_load_weights_names_a_missing_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "nothing.pth"
    with pytest.raises(FileNotFoundError, match=f"^weights={path}: no such file; name a .safetensors"):
        load_weights(network(0), str(path))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 cut off"])
def test_load_weights_names_a_broken_file(name: str, content: bytes, tmp_path: pathlib.Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^weights={path} cannot be read \(.+\); allowed are .safetensors"):
        load_weights(network(0), str(path))


def test_load_weights_names_a_damaged_file(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(saved(trained(), tmp_path))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=f"^weights={path} cannot be read"):
        load_weights(network(0), str(path))


class Opening:
    """When this object is unpickled, it opens a file for writing."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def test_load_weights_runs_no_code(tmp_path: pathlib.Path) -> None:
    path = saved({"model": trained(), "config": Opening(tmp_path / "opened")}, tmp_path)
    with pytest.raises(ValueError, match=f"^weights={path} cannot be read"):
        load_weights(network(0), path)
    assert not (tmp_path / "opened").exists()


def test_load_weights_refuses_tensors_without_names(tmp_path: pathlib.Path) -> None:
    path = saved([torch.ones(2)], tmp_path)
    with pytest.raises(ValueError, match=f"^weights={path} cannot be read"):
        load_weights(network(0), path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [({}, "it is empty"), ({"epoch": 3, "net": {}}, "epoch is not a tensor")],
    ids=["empty", "other table"],
)
def test_load_weights_wants_a_table_of_tensors(
    content: dict[str, object], fault: str, tmp_path: pathlib.Path
) -> None:
    path = saved(content, tmp_path)
    with pytest.raises(ValueError, match=f"^weights={path} is not a table of named tensors: {fault}; save"):
        load_weights(network(0), path)
