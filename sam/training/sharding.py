"""FSDP2: weights, gradients, momentum and SAM's copy in shards, one per process.

The whole network is one unit: its weights are gathered for a pass and dropped after it. Checkpoints hold
whole tensors, so a run may go on with any number of processes, sharded or not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only


def shard(model: nn.Module, num_processes: int) -> None:
    """Leave each process its shard of every parameter; to be called before there is an optimizer.

    Passes then exchange gradients by themselves, each time.
    """
    device = next(model.parameters()).device
    model.to(memory_format=torch.contiguous_format)  # fully_shard wants that
    fully_shard(model, mesh=init_device_mesh(device.type, (num_processes,)))


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Keep the weights of a sharded model gathered, so that processes may make different numbers of passes.

    All processes must enter and leave together. Other models are left alone.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    yield
    model.reshard()


def gathered(state: Any) -> Any:
    """Return a state with whole tensors in the place of sharded ones; all processes must ask together."""
    return tree_map_only(DTensor, lambda tensor: tensor.full_tensor(), state)


def shard_like(weight: Tensor | None, value: Any) -> Any:
    """Return this process's shard of a whole tensor if a weight of its shape is sharded, else the value."""
    if not isinstance(weight, DTensor) or not isinstance(value, Tensor) or value.shape != weight.shape:
        return value
    # Every process has read the same file, so nothing needs to be sent.
    whole = value.to(weight.device)
    return distribute_tensor(whole, weight.device_mesh, weight.placements, src_data_rank=None)


def load_model(model: nn.Module, state: dict[str, Any]) -> None:
    """Load the weights and buffers of what Trainer.state() returned.

    Raises:
        ValueError: If they are those of another model.
    """
    weights = dict(model.named_parameters())
    try:
        model.load_state_dict(
            {name: shard_like(weights.get(name), value) for name, value in state["model"].items()}
        )
    except RuntimeError as error:
        raise ValueError(f"the checkpoint does not fit the model: {error}") from error


def sharded_like(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state with what belongs to sharded weights sharded like them."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    kept = {
        number: {name: shard_like(weights[number], value) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": kept}
