"""What is analysed: the network of a run at one moment, and the images that its loss is looked at over."""

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
    """What is analysed.

    Attributes:
        config: Of the run.
        directory: Of the run.
        data: Its dataset, with the labels that it is trained on.
        network: With the weights of the moment; left as it is.
        moment: Of these weights.
        resolved: What the config means where the network is, for one process.
    """

    config: TrainConfig
    directory: pathlib.Path
    data: Dataset
    network: nn.Module
    moment: Moment
    resolved: Resolved

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.resolved.device


def sample_of(chosen: AnalysisConfig, subject: Subject) -> SampleLoss:
    """Return the loss of a copy of the network over the images that an analysis looks at.

    The images are in a fixed random order, so that those that share a perturbation are of mixed classes.
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
    """Return a copy that may be moved about, and that autograd can differentiate twice."""
    twin = copy.deepcopy(network)
    if hasattr(twin, "set_grad_checkpointing"):  # of timm's networks
        twin.set_grad_checkpointing(False)  # type: ignore[operator]
    return twin


def tell_cost(
    name: str, num_passes: float, sample: SampleLoss, say: Callable[[str], None], note: str = ""
) -> None:
    """Say how long so many forward-backward passes over an image take, from the time of a few.

    Args:
        name: Of the analysis.
        num_passes: That it takes.
        sample: The images.
        say: Hears it.
        note: What else is to be said.
    """
    images, targets = next(sample.chunks())
    for _ in range(2):  # the first one pays for what is set up once
        started = time.monotonic()
        grads = torch.autograd.grad(sample.chunk_loss(images, targets), sample.weights)
        float(grads[0].sum())  # waits for the device
        seconds = (time.monotonic() - started) / len(targets)
    say(
        f"{name}: {num_passes:,.0f} passes over an image, about {num_passes * seconds:,.0f} s at "
        f"{1 / seconds:,.0f} passes a second{note}"
    )
