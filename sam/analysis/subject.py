"""The subject of an analysis: the network of a run at one moment, and the sample of images for its loss."""

import copy
import dataclasses
import pathlib
import time
from collections.abc import Callable

import torch
from torch import nn

from sam.analysis.sample import SampleLoss
from sam.build.data import make_evaluation_batches
from sam.build.from_run import Moment
from sam.build.resolved import Resolved
from sam.config.analysis import AnalysisConfig
from sam.config.schema import TrainConfig
from sam.data.images import Dataset, stratified_subset, with_true_labels


@dataclasses.dataclass(frozen=True)
class Subject:
    """The network to analyse, and its run.

    Attributes:
        config: The run's config.
        directory: The run's directory.
        data: The run's dataset, with the labels that the run is trained on.
        network: The network with the weights of the moment; left unchanged.
        moment: The run's progress when it had these weights.
        resolved: The resolved config on the network's device, for one process.
    """

    config: TrainConfig
    directory: pathlib.Path
    data: Dataset
    network: nn.Module
    moment: Moment
    resolved: Resolved

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return self.resolved.device


def sample_of(chosen: AnalysisConfig, subject: Subject) -> SampleLoss:
    """Return the loss of a copy of the network over the images that the analysis uses.

    The images are in a fixed random order, so that images that share a perturbation have mixed classes.
    """
    split = subject.data.train if chosen.split == "train" else subject.data.test
    num_images = min(chosen.num_images or len(split), len(split))
    indices = stratified_subset(with_true_labels(split).targets, num_images)
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(0))
    # No worker process may start during training.
    without_workers = dataclasses.replace(subject.resolved, workers=0)
    batches = make_evaluation_batches(
        subject.config.model, subject.data, split.take(indices[order]), without_workers
    )
    images, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    dtype = getattr(torch, chosen.dtype)
    network = copy_of(subject.network).to(dtype)
    return SampleLoss(
        network, images.to(dtype), targets, chosen.chunk_size, batch_statistics=chosen.statistics == "batch"
    )


def copy_of(network: nn.Module) -> nn.Module:
    """Return a copy whose weights may be changed and that autograd can differentiate twice."""
    twin = copy.deepcopy(network)
    if hasattr(twin, "set_grad_checkpointing"):  # a method of timm's networks
        twin.set_grad_checkpointing(False)  # type: ignore[operator]
    return twin


def tell_cost(
    name: str, num_passes: float, sample: SampleLoss, say: Callable[[str], None], note: str = ""
) -> None:
    """Report how long an analysis will take, estimated from the time of one pass over a chunk.

    Args:
        name: The name of the analysis.
        num_passes: The number of forward-backward passes over one image that the analysis makes.
        sample: The images.
        say: Called with the estimate.
        note: Text to add to the estimate.
    """
    images, targets = next(sample.chunks())
    for _ in range(2):  # the first pass includes one-time setup; the second is timed
        started = time.monotonic()
        grads = torch.autograd.grad(sample.chunk_loss(images, targets), sample.weights)
        float(grads[0].sum())  # waits for the device
        seconds = (time.monotonic() - started) / len(targets)
    say(
        f"{name}: {num_passes:,.0f} passes over an image, about {num_passes * seconds:,.0f} s at "
        f"{1 / seconds:,.0f} passes a second{note}"
    )
