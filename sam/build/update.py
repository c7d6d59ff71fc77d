"""From a config to an update: optimizer, rule and passes.

Errors in values that can only be found here become a ConfigError.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from torch import nn

from sam.build.base_optimizer import base_optimizer
from sam.build.resolved import Resolved
from sam.build.rules import Parts, make_rule
from sam.config.optimizer import OptimizerConfig
from sam.optim.running_statistics import RunningStatistics
from sam.system.errors import ConfigError, user_errors
from sam.training.distributed import World
from sam.training.forward_backward import ForwardBackward
from sam.training.gradients import FlatGradients
from sam.training.precision import Precision
from sam.training.replay import GraphRecorder, Replay
from sam.training.update import Update


def make_update(
    chosen: OptimizerConfig,
    network: nn.Module,
    called: nn.Module,
    resolved: Resolved,
    *,
    num_steps: int,
    label_smoothing: float = 0.0,
    unsynced: Callable[[], AbstractContextManager[object]] | None = None,
    world: World = World(),  # noqa: B008 - it is frozen
) -> Update:
    """Return the update of a run, with its rule and its optimizer.

    Args:
        chosen: The optimizer section of the config.
        network: The network that holds the parameters and buffers.
        called: The module that returns logits: the network itself, or the network compiled or wrapped.
        resolved: The precision, device and m for this process.
        num_steps: Number of updates in the whole run.
        label_smoothing: 0 <= label_smoothing < 1.
        unsynced: As in ForwardBackward.
        world: The processes that share each batch.
    """
    in_loss = chosen.weight_decay_in == "loss"
    forward_backward = ForwardBackward(
        called,
        Precision(resolved.precision, resolved.device),
        RunningStatistics(network),
        label_smoothing=label_smoothing,
        weight_decay_in_loss=chosen.weight_decay if in_loss else 0.0,
        unsynced=unsynced,
    )
    with user_errors("optimizer"):
        base = base_optimizer(chosen)
        rule = make_rule(Parts(chosen, network, forward_backward, *base, num_steps, world))
    replay = None
    if resolved.graph != "false":
        gradients = FlatGradients([weight for weight in network.parameters() if weight.requires_grad])
        recorder = GraphRecorder(resolved.device)
        replay = Replay(
            rule, forward_backward.statistics, gradients, recorder, world, partial(_refuse_graph, resolved)
        )
    return Update(rule, forward_backward, resolved.m, chosen.clip_norm, replay)


def tell_eager(resolved: Resolved, reason: str) -> None:
    """Tell the user why a run on a GPU records no CUDA graph."""
    if resolved.process.is_main:
        print(f"no CUDA graph (runtime.graph=auto), so the run is slower: {reason}", file=sys.stderr)


def _refuse_graph(resolved: Resolved, reason: str) -> None:
    if resolved.graph == "true":
        raise ConfigError(f"runtime.graph=true is not possible: {reason}; use runtime.graph=auto")
    tell_eager(resolved, reason)
