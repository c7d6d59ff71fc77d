"""From a config to the evaluation of a network."""

from collections.abc import Callable
from functools import partial

from torch import nn

from sam.build.data import make_evaluation_batches
from sam.build.resolved import Resolved
from sam.config.model import ModelConfig
from sam.data.images import Dataset, Split
from sam.training.distributed import World
from sam.training.evaluation import Evaluation, evaluate
from sam.training.precision import Precision


def make_evaluation(
    model: ModelConfig, data: Dataset, split: Split, network: nn.Module, resolved: Resolved, world: World
) -> Callable[[], Evaluation]:
    """Return the function that evaluates a network on a split of a dataset.

    Args:
        model: The model's part of the config.
        data: The dataset.
        split: One of its splits.
        network: The network, as it is whenever the function is called.
        resolved: What the config means for this process.
        world: The processes that share the split.
    """
    return partial(
        evaluate,
        network,
        make_evaluation_batches(model, data, split, resolved),
        num_classes=data.num_classes,
        device=resolved.device,
        precision=Precision(resolved.precision, resolved.device),
        world=world,
    )
