"""FSDP2: weights, gradients, momentum and SAM's copy of the weights in shards, one per process.

The whole network is one FSDP unit: all weights are gathered for a pass and dropped after it. Checkpoints hold
whole tensors, so a run may continue with another number of processes, sharded or not.
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
    """Shard every parameter over the processes; call this before the optimizer is created.

    Every backward pass then exchanges gradients.
    """
    device = next(model.parameters()).device
    model.to(memory_format=torch.contiguous_format)  # fully_shard requires it
    fully_shard(model, mesh=init_device_mesh(device.type, (num_processes,)))


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Keep the weights of a sharded model gathered, so that processes may make different numbers of passes.

    All processes must enter and leave together. A model that is not sharded is left unchanged.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    yield
    model.reshard()


def gathered(state: Any) -> Any:
    """Return a state with whole tensors instead of sharded ones; all processes must call this together."""
    return tree_map_only(DTensor, lambda tensor: tensor.full_tensor(), state)


def shard_like(weight: Tensor | None, value: Any) -> Any:
    """Return this process's shard of a whole tensor if the weight is sharded; else return the value itself.

    Values in another shape than the weight's, such as step counters, are not sharded.
    """
    if not isinstance(weight, DTensor) or not isinstance(value, Tensor) or value.shape != weight.shape:
        return value
    # Every process has read the same file, so no data needs to be sent (src_data_rank=None).
    whole = value.to(weight.device)
    return distribute_tensor(whole, weight.device_mesh, weight.placements, src_data_rank=None)


def load_model(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load weights and buffers, by name, from the result of Trainer.state().

    Raises:
        ValueError: If they belong to another model.
    """
    weights = dict(model.named_parameters())
    try:
        model.load_state_dict({name: shard_like(weights.get(name), value) for name, value in state.items()})
    except RuntimeError as error:
        raise ValueError(f"the checkpoint does not fit the model: {error}") from error


def sharded_like(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state in which the tensors of sharded weights are sharded in the same way."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    kept = {
        number: {name: shard_like(weights[number], value) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": kept}
