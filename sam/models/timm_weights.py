"""Load trained weights from a file into a network of timm.

A file of timm has the tensor names of the network. Other files, such as those of other PyTorch ports of
EfficientNet, have the same tensors under other names. These are matched in their order, if the kind (the last
part of the name: weight, bias, running_mean, ...) and shape of each pair agree. A file in alphabetical order
is refused, since its kinds do not agree: layers register weight before bias. A checkpoint of this project can
be loaded too.
"""

import os
from collections.abc import Mapping, Set
from itertools import zip_longest

from torch import Tensor, nn

from sam.system.errors import first_line
from sam.system.foreign_files import check_torch_file

COUNTER = "num_batches_tracked"


def load_weights(network: nn.Module, path: str) -> bool:
    """Copy the tensors of a file into a network, except a head of another size.

    The step counters of batch norm are not changed.

    Args:
        network: A network of timm. Its head keeps its values if the file has no head of the same size.
        path: A .safetensors file or a torch checkpoint. The tensors of a checkpoint may be under the key
            state_dict or model; averaged weights under state_dict_ema or model_ema are preferred.

    Returns:
        Whether the head was loaded from the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or holds the weights of another network.
    """
    state = network.state_dict()
    wanted = without_counters(state)
    head = head_names(network, wanted)
    given = without_counters(read_tensors(path))
    if wanted.keys() - head == given.keys() - head:
        pairs: list[tuple[str | None, str | None]] = [(name, name) for name in wanted if name in given]
    else:
        pairs = list(zip_longest(wanted, given))
    found: dict[str, Tensor] = {}
    for own, theirs in pairs:
        if own is None or theirs is None or not fits(own, theirs, wanted, given, head):
            raise ValueError(misfit(own, theirs, wanted, given, path))
        found[own] = given[theirs]
    has_head = all(name in found and found[name].shape == wanted[name].shape for name in head)
    if not has_head:
        found = {name: tensor for name, tensor in found.items() if name not in head}
    network.load_state_dict({**state, **found})
    return has_head


def read_tensors(path: str) -> dict[str, Tensor]:
    """Return the named tensors of a file on the CPU; no code in the file is run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or holds anything but named tensors.
    """
    from timm.models import load_state_dict  # the import takes a second

    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"weights={path}: no such file; name a .safetensors file or a torch checkpoint"
        )
    try:
        check_torch_file(path)
        tensors: dict[str, Tensor] = load_state_dict(path, weights_only=True)
    except Exception as error:  # torch and safetensors can raise almost anything for a file of unknown origin
        raise ValueError(
            f"weights={path} cannot be read ({first_line(error)}); allowed are .safetensors files and torch "
            "checkpoints that hold only tensors and numbers"
        ) from error
    strange = [name for name, tensor in tensors.items() if not isinstance(tensor, Tensor)]
    if strange or not tensors:
        found = f"{strange[0]} is not a tensor" if strange else "it is empty"
        raise ValueError(
            f"weights={path} is not a table of named tensors: {found}; save only model.state_dict(), "
            "directly or under the key state_dict or model"
        )
    return tensors


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return all tensors except the step counters of batch norm, in their order."""
    return {name: tensor for name, tensor in state.items() if kind(name) != COUNTER}


def kind(name: str) -> str:
    """Return the last part of a tensor's name, such as "weight"."""
    return name.rpartition(".")[2]


def head_layers(network: nn.Module) -> list[nn.Module]:
    """Return the classifier, or classifiers, of a network of timm."""
    classifier = network.get_classifier()  # type: ignore[operator]
    return list(classifier) if isinstance(classifier, tuple | list) else [classifier]


def head_names(network: nn.Module, names: Mapping[str, Tensor]) -> set[str]:
    """Return the tensor names of the classifier, or classifiers, of a network of timm."""
    layers = head_layers(network)
    places = [name for name, module in network.named_modules() if any(module is layer for layer in layers)]
    return {name for name in names if name.startswith(tuple(f"{place}." for place in places))}


def fits(
    own: str, theirs: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], head: Set[str]
) -> bool:
    """Say whether a tensor of the file matches one of the network; in the head the shape may differ."""
    return kind(own) == kind(theirs) and (own in head or wanted[own].shape == given[theirs].shape)


def misfit(
    own: str | None, theirs: str | None, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], path: str
) -> str:
    """Return the message for two tensors that do not match; a name of None: that side has no tensor left."""
    here = f"{own} {list(wanted[own].shape)}" if own else "nothing more"
    there = f"{theirs} {list(given[theirs].shape)}" if theirs else "nothing more"
    message = f"weights={path} is for another network: this one has {here} where the file has {there}"
    if own and theirs:
        ours, other = wanted[own].shape, given[theirs].shape
        if len(ours) == len(other) == 4 and ours[:1] + ours[2:] == other[:1] + other[2:]:
            return f"{message}; it was trained on {other[1]} input channels, not {ours[1]}"
    return f"{message}; choose the model.timm_name with which the file was made"
