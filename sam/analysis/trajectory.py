"""The path of a run through the space of its weights, along its principal components.

Li et al. (2018), Visualizing the Loss Landscape of Neural Nets, section 7: principal component analysis of
the weights of several epochs. The plane of the landscape goes through the last weights. The weights of the
other epochs lie near this plane, not in it: the path is their projection.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam.analysis.sample import SampleLoss
from sam.analysis.subject import Subject
from sam.system.errors import ConfigError
from sam.training.checkpoint import CheckpointStore

# A component with a smaller share of the variance than this is rounding.
LEAST_SHARE = 1e-12


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A path in the plane (or along the line) of its principal components.

    Attributes:
        coordinates: Float64 [n, k], in weight units, for k components. The last row, the end, is zero; the
            path begins at coordinates that are not positive.
        directions: For each component, one tensor per weight in its shape; their joint 2-norm is 1.
        explained_pct: Share of the variance of the path along each component.
    """

    coordinates: NDArray[np.float64]
    directions: list[list[Tensor]]
    explained_pct: list[float]


@torch.no_grad()
def principal_path(moments: Sequence[Sequence[Tensor]], num_components: int) -> Trajectory:
    """Return the principal components of a path and its projection on them.

    The components are those of the centred weights of all moments. They come from the n x n matrix of inner
    products, in float64, because a covariance of all weights would be too large.

    Args:
        moments: The weights at n moments in order, each with one tensor per weight.
        num_components: Number of components, k.

    Raises:
        ValueError: If the path has fewer components, because the weights lie on a line or do not move; or if
            they are not finite.
    """
    products = torch.zeros(len(moments), len(moments), dtype=torch.float64)
    for parts in zip(*moments, strict=True):
        steps = _steps(parts)
        products += (steps @ steps.T).cpu()
    if not products.isfinite().all():
        raise ValueError("weights of the path are not finite")
    centring = torch.eye(len(moments), dtype=torch.float64) - 1 / len(moments)
    variances, vectors = torch.linalg.eigh(centring @ products @ centring)
    variances, vectors = variances.flip(0), vectors.flip(1)  # largest first
    shares = (variances / variances.sum()).nan_to_num().tolist()
    if len(moments) < num_components or shares[num_components - 1] < LEAST_SHARE:
        raise ValueError(
            f"the path of {len(moments)} moments has fewer than {num_components} directions; keep the "
            "weights of more epochs with runtime.keep_weights_every, or set analysis.dimensions=1"
        )
    mixing = centring @ vectors[:, :num_components] / variances[:num_components].sqrt()
    coordinates = products @ mixing
    signs = torch.where(coordinates[0] > 0, -1.0, 1.0).double()
    mixing, coordinates = mixing * signs, coordinates * signs
    directions: list[list[Tensor]] = [[] for _ in range(num_components)]
    for parts in zip(*moments, strict=True):
        along = mixing.T.to(parts[0].device) @ _steps(parts)
        for direction, values in zip(directions, along, strict=True):
            direction.append(values.view(parts[0].shape).to(parts[0]))
    return Trajectory(coordinates.numpy(), directions, [100 * share for share in shares[:num_components]])


def path_steps(coordinates: NDArray[np.float64], span: float, num_points: int) -> NDArray[np.float64]:
    """Return evenly spaced coordinates that go beyond a path by half a span on each side.

    Args:
        coordinates: The path along one component, [n].
        span: In units of the extent of the path.
        num_points: Number of coordinates.
    """
    low, high = coordinates.min(), coordinates.max()
    margin = span / 2 * (high - low)
    return np.linspace(low - margin, high + margin, num_points)


def kept_epochs(subject: Subject) -> list[int]:
    """Return the epochs before the subject's moment whose weights the run has kept, in order."""
    kept = CheckpointStore(subject.directory).kept_epochs()
    return [epoch for epoch in kept if (epoch, 0) < subject.moment]


def trajectory_of(subject: Subject, sample: SampleLoss, num_components: int) -> Trajectory:
    """Return the path of a run from its kept weights to the weights of the subject.

    Args:
        subject: The network and its run.
        sample: The loss of a copy of that network.
        num_components: Number of components.

    Raises:
        ConfigError: If the run has kept no weights.
        ValueError: If it has kept too few, or if a file is damaged or belongs to another network.
    """
    epochs = kept_epochs(subject)
    if not epochs:
        raise ConfigError(
            f"analysis.directions=trajectory: {subject.directory} has kept no weights of earlier epochs; "
            "train it again with runtime.keep_weights_every=1 and force=true"
        )
    store = CheckpointStore(subject.directory)
    moments = [_weights(store.kept(epoch), sample, epoch) for epoch in epochs]
    return principal_path([*moments, sample.weights], num_components)


def _weights(state: dict[str, Tensor], sample: SampleLoss, epoch: int) -> list[Tensor]:
    """Return kept weights in the order, dtype and device of those of the sample."""
    found = []
    for name, weight in sample.network.named_parameters():
        if not weight.requires_grad:
            continue
        if name not in state or state[name].shape != weight.shape:
            raise ValueError(f"the weights of epoch {epoch} do not fit the network: {name}")
        found.append(state[name].to(weight))
    return found


def _steps(parts: Sequence[Tensor]) -> Tensor:
    """Return the differences between one weight at n moments and at the last one, float64 [n, entries]."""
    return torch.stack([(part.double() - parts[-1].double()).flatten() for part in parts])
