"""The loss of a network along one line, or over one plane, through its weights.

Li et al. (2018), Visualizing the Loss Landscape of Neural Nets, section 4: L(w + a * d_1 + b * d_2), where
every filter of a direction has the norm of the same filter of w. Directions are random or eigenvectors of the
Hessian. The first may instead lead to the weights of another network: w + a * (w_other - w). Or directions
are the principal components of the path of a run (trajectory.py), which are not normalised by filter.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from sam.analysis.sample import SampleLoss


@dataclasses.dataclass(frozen=True)
class Surface:
    """Loss and error at the points of a grid.

    Attributes:
        steps_1: Coordinates a, float64 [n1].
        steps_2: Coordinates b, float64 [n2]; None along a line.
        loss: Float64 [n1] or [n1, n2]; NaN where not yet measured, infinite where the network overflows.
        error_pct: Top-1 error in percent, float64, in the shape of loss.
    """

    steps_1: NDArray[np.float64]
    steps_2: NDArray[np.float64] | None
    loss: NDArray[np.float64]
    error_pct: NDArray[np.float64]


def empty_surface(steps_1: NDArray[np.float64], steps_2: NDArray[np.float64] | None = None) -> Surface:
    """Return a surface without any measured point."""
    shape = (len(steps_1),) if steps_2 is None else (len(steps_1), len(steps_2))
    return Surface(steps_1, steps_2, np.full(shape, np.nan), np.full(shape, np.nan))


def symmetric_steps(span: float, num_points: int) -> NDArray[np.float64]:
    """Return coordinates from -span to span, evenly spaced, with exactly 0 in the middle.

    Raises:
        ValueError: If span is not positive and finite, or num_points not odd and at least 3.
    """
    _check_grid(span, num_points)
    half = np.linspace(0, span, num_points // 2 + 1)
    return np.concatenate([-half[:0:-1], half])


def steps_between(span: float, num_points: int) -> NDArray[np.float64]:
    """Return evenly spaced coordinates from about -span / 2 to about 1 + span / 2.

    Both 0 and 1 are among them exactly, so the ends are rounded to a whole number of steps.

    Raises:
        ValueError: If span is not positive and finite, or num_points not odd and at least 3.
    """
    _check_grid(span, num_points)
    num_outside = round((num_points - 1) / 2 * span / (1 + span))  # on either side
    num_outside = min(num_outside, (num_points - 3) // 2)
    num_between = num_points - 1 - 2 * num_outside
    return np.arange(-num_outside, num_between + num_outside + 1) / num_between


def random_directions(weights: Sequence[Tensor], dimensions: int, seed: int) -> list[list[Tensor]]:
    """Return random directions, normalised filter by filter.

    Args:
        weights: The weights w; left unchanged.
        dimensions: Number of directions. A larger number adds directions and keeps the first ones.
        seed: Seed of the normal distribution; the numbers are the same for every device and dtype.

    Returns:
        For each direction, one tensor per weight in its shape.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = []
    for _ in range(dimensions):
        noise = [torch.randn(weight.shape, generator=generator, dtype=torch.float64) for weight in weights]
        directions.append(_normalised_by_filter(weights, noise))
    return directions


def eigenvector_directions(weights: Sequence[Tensor], vectors: Tensor) -> list[list[Tensor]]:
    """Return eigenvectors of the Hessian, normalised filter by filter.

    Normalised, they are no longer eigenvectors: each filter's part keeps its direction but gets another
    length, and biases and norm layers get zero.

    Args:
        weights: The weights w, P entries together; left unchanged.
        vectors: [k, P], entries in the order of the weights.

    Returns:
        For each vector, one tensor per weight in its shape.

    Raises:
        ValueError: If the vectors are not as long as the weights.
    """
    sizes = [weight.numel() for weight in weights]
    if vectors.dim() != 2 or vectors.shape[1] != sum(sizes):
        raise ValueError(
            f"eigenvectors must be [k, {sum(sizes)}] for these weights, got {list(vectors.shape)}"
        )
    return [_normalised_by_filter(weights, vector.split(sizes)) for vector in vectors]


@torch.no_grad()
def _normalised_by_filter(weights: Sequence[Tensor], direction: Sequence[Tensor]) -> list[Tensor]:
    """Return d_ij * ||w_ij|| / ||d_ij|| for filter j of layer i (Li et al. 2018, section 4).

    A filter is the set of weights of one output channel or neuron. Biases and the parameters of norm layers
    (tensors of at most one dimension) get zero, as in that paper's code. A filter of zeros also gets zero.
    """
    normalised = []
    for weight, part in zip(weights, direction, strict=True):
        if weight.dim() < 2:
            normalised.append(torch.zeros_like(weight))
            continue
        wanted = weight.cpu().double().flatten(1)
        filters = part.cpu().double().view_as(wanted)
        lengths = filters.norm(dim=1, keepdim=True)
        filters = filters * torch.where(lengths > 0, wanted.norm(dim=1, keepdim=True) / lengths, 0)
        normalised.append(filters.view(weight.shape).to(weight))
    return normalised


@torch.no_grad()
def fill_surface(
    sample: SampleLoss,
    surface: Surface,
    directions: Sequence[Sequence[Tensor]],
    other: nn.Module | None = None,
    save: Callable[[], None] | None = None,
    seconds_between_saves: float = 60.0,
) -> None:
    """Measure the points of a surface that are not measured yet, and write them into its arrays.

    On the line to another network, batch norm's running statistics are interpolated like the weights. Beyond
    an end they keep the values of that end, because a variance must not become negative. They fit the
    weights at the ends only, which raises the loss in between. A sample with batch statistics avoids this.

    Args:
        sample: The loss. Its network is changed during the measurement and restored exactly.
        surface: The result of empty_surface(), or a partly measured surface.
        directions: One direction per axis of the surface, each with one tensor per weight. With `other`, the
            first axis has no direction here.
        other: The network at a = 1 on the first axis, of the same architecture; left unchanged.
        save: Called between points from time to time, so that an interruption loses little.
        seconds_between_saves: Shortest time between two calls of save.

    Raises:
        ValueError: If there are not as many directions as axes, or the two networks differ in their tensors.
    """
    if len(directions) + (other is not None) != surface.loss.ndim:
        raise ValueError(
            f"{len(directions)} directions, other={other is not None} for {surface.loss.ndim} axes"
        )
    mover = _Mover(sample, directions, other)
    axes = [steps for steps in (surface.steps_1, surface.steps_2) if steps is not None]
    saved = time.monotonic()
    try:
        for place in tqdm(np.argwhere(np.isnan(surface.loss)), desc="landscape", unit="point", disable=None):
            point = tuple(place)
            mover.go([float(steps[i]) for steps, i in zip(axes, point, strict=True)])
            loss, surface.error_pct[point] = sample.measure()
            surface.loss[point] = loss if np.isfinite(loss) else np.inf
            if save is not None and time.monotonic() - saved >= seconds_between_saves:
                save()
                saved = time.monotonic()
    finally:
        mover.return_()


def num_image_passes(num_images: int, surface: Surface) -> float:
    """Return the number of passes over one image for the missing points; a forward pass counts as a third."""
    return num_images * int(np.isnan(surface.loss).sum()) / 3


class _Mover:
    """Moves a network to points of a line or a plane, each computed from its original weights, and back."""

    def __init__(
        self, sample: SampleLoss, directions: Sequence[Sequence[Tensor]], other: nn.Module | None
    ) -> None:
        self._weights = sample.weights
        self._directions = directions
        self._parameters = list(sample.network.parameters())
        self._statistics = _statistics(sample.network)
        self._centres = [tensor.clone() for tensor in [*self._parameters, *self._statistics]]
        self._ends: list[Tensor] | None = None
        if other is not None:
            _check_same_tensors(sample.network, other)
            ends = [*other.parameters(), *_statistics(other)]
            self._ends = [end.to(centre) for end, centre in zip(ends, self._centres, strict=True)]

    def go(self, steps: list[float]) -> None:
        """Move to the point with these coordinates."""
        self.return_()
        if self._ends is not None:
            # lerp is exact at both ends; w + 1 * (w_other - w) is not.
            along, *steps = steps
            num_parameters = len(self._parameters)
            for weight, end in zip(self._parameters, self._ends[:num_parameters], strict=True):
                weight.lerp_(end, along)
            for statistic, end in zip(self._statistics, self._ends[num_parameters:], strict=True):
                statistic.lerp_(end, min(max(along, 0.0), 1.0))
        for step, direction in zip(steps, self._directions, strict=True):
            torch._foreach_add_(self._weights, list(direction), alpha=step)

    def return_(self) -> None:
        """Move back to the original weights and statistics."""
        torch._foreach_copy_([*self._parameters, *self._statistics], self._centres)


def _statistics(network: nn.Module) -> list[Tensor]:
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]


def _check_same_tensors(network: nn.Module, other: nn.Module) -> None:
    one, two = (
        {name: tuple(tensor.shape) for name, tensor in [*each.named_parameters(), *each.named_buffers()]}
        for each in (network, other)
    )
    differing = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    if differing:
        raise ValueError(
            f"the networks differ in {len(differing)} tensors, such as {differing[0]} "
            f"({one.get(differing[0])} and {two.get(differing[0])}); both must be of the same architecture"
        )


def _check_grid(span: float, num_points: int) -> None:
    if not 0 < span < float("inf"):
        raise ValueError(f"span must be finite and greater than 0, got {span}")
    if num_points < 3 or num_points % 2 == 0:
        raise ValueError(
            f"points must be odd and at least 3, so that the centre is one of them, got {num_points}; "
            f"take {max(3, num_points + 1)}"
        )
