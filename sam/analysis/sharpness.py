"""Sharpness of a network: how far its loss rises in a ball around the weights.

Foret et al. (2021), section 4.2: m-sharpness splits the sample S into disjoint subsets B of m images. Each
subset has its own maximum:

    mean over B of  max over ||eps||_2 <= rho  of  L_B(w + eps) - L_B(w).

The maximum is approximated as in training: by one step of SAM (Eq. 2), or by several steps of projected
gradient ascent (appendix C.5). So the measured value is a lower bound.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from sam.analysis.sample import SampleLoss
from sam.optim.perturbation import global_norm, move_, project_, scaled_by_weights


@dataclasses.dataclass(frozen=True)
class Row:
    """The sharpness for one m and one number of ascent steps.

    Attributes:
        m: Images that share one perturbation.
        ascent_steps: Steps from w to w + eps.
        loss_rise: Mean over subsets of L_B(w + eps) - L_B(w), weighted by their images.
        loss_rise_standard_error: Standard error of loss_rise over the subsets; None for a single subset.
        error_rise_points: The same mean for the top-1 error, in percentage points.
        num_subsets: Number of subsets; the last is smaller if m does not divide the sample.
    """

    m: int
    ascent_steps: int
    loss_rise: float
    loss_rise_standard_error: float | None
    error_rise_points: float
    num_subsets: int


@dataclasses.dataclass(frozen=True)
class _Ascent:
    num_steps: int
    rho: float
    step_size: float
    adaptive: bool


def measure_sharpness(
    sample: SampleLoss,
    rho: float,
    ms: Sequence[int],
    ascent_steps: Sequence[int],
    ascent_step_size: float = 1.0,
    adaptive: bool = False,
) -> list[Row]:
    """Measure m-sharpness for several m and several lengths of the ascent.

    The first step has length rho along the gradient. Each further step has length ascent_step_size * rho and
    is projected onto ||eps||_2 <= rho. One ascent with the largest number of steps gives the rows of all
    smaller numbers. Subsets are consecutive images, so the images should be in random order. With batch
    statistics, batch norm uses the statistics of the subset, as in training with micro-batches of m images
    (or of the chunk, if it is smaller); then L_B(w) also depends on m. If the gradient of a subset is zero or
    not finite, its eps does not change.

    Args:
        sample: The loss. Its weights are changed during the measurement and restored exactly.
        rho: Radius of the ball, in weight units (for ASAM's ball, in units of |w|); finite, >= 0.
        ms: Numbers of images that share one perturbation, each at least 1. A number above the N images of the
            sample means N. m = N is always measured too.
        ascent_steps: Numbers of steps, each at least 1.
        ascent_step_size: Length of the steps after the first, in units of rho; finite, > 0.
        adaptive: Use the ball of ASAM (Kwon et al. 2021), ||eps / w||_2 <= rho, with one step only, as in
            training.

    Returns:
        A row for each m and each number of steps, both ascending.

    Raises:
        ValueError: If an argument is out of range, or if adaptive is combined with several steps.
    """
    _check(rho, ms, ascent_steps, ascent_step_size, adaptive)
    ascent = _Ascent(max(ascent_steps), rho, ascent_step_size, adaptive)
    rows = []
    with tqdm(
        desc="sharpness", total=_num_images_climbed(len(sample), ms), unit="image", disable=None
    ) as bar:
        for m in _subset_sizes(len(sample), ms):
            sizes, paths = [], []
            for subset in _subsets(sample, m):
                paths.append(_climb(subset, ascent))
                sizes.append(len(subset))
                bar.update(len(subset))
            shares = torch.tensor(sizes, dtype=torch.float64) / len(sample)
            measured = torch.tensor(paths, dtype=torch.float64)
            rises = measured[:, 1:] - measured[:, :1]
            rows += [_row(m, steps, shares, rises[:, steps - 1]) for steps in sorted(set(ascent_steps))]
    return rows


def num_image_passes(num_images: int, ms: Sequence[int], ascent_steps: Sequence[int]) -> float:
    """Return the number of forward-backward passes over one image that measure_sharpness makes.

    For each image and m: one pass for each step of the longest ascent, and one forward pass at its end, which
    counts as a third.
    """
    return _num_images_climbed(num_images, ms) * (max(ascent_steps) + 1 / 3)


def _num_images_climbed(num_images: int, ms: Sequence[int]) -> int:
    return num_images * len(_subset_sizes(num_images, ms))


def _subset_sizes(num_images: int, ms: Sequence[int]) -> list[int]:
    return sorted({num_images, *(m for m in ms if m < num_images)})


def _subsets(sample: SampleLoss, m: int) -> Iterator[SampleLoss]:
    for images, targets in zip(sample.images.split(m), sample.targets.split(m), strict=True):
        yield SampleLoss(sample.network, images, targets, sample.chunk_size, sample.batch_statistics)


@torch.no_grad()
def _climb(sample: SampleLoss, ascent: _Ascent) -> list[tuple[float, float]]:
    """Return loss and error in percent after 0, 1, 2 ... ascent steps; the weights are restored exactly."""
    centres = [weight.clone() for weight in sample.weights]
    path = []
    try:
        for number in range(ascent.num_steps):
            with torch.enable_grad():
                loss, error_pct, grads = sample.measure_with_gradient()
            path.append((loss, error_pct))
            _step_(sample.weights, centres, grads, ascent, is_first=number == 0)
        path.append(sample.measure())
    finally:
        torch._foreach_copy_(sample.weights, centres)
    return path


def _step_(
    weights: list[Tensor], centres: list[Tensor], grads: list[Tensor], ascent: _Ascent, is_first: bool
) -> None:
    """Move the weights one ascent step: the first as in SAM.perturb(), the others as in SAM.climb()."""
    if not is_first:
        move_(weights, grads, ascent.step_size * ascent.rho, global_norm(grads))
        project_(weights, centres, ascent.rho)
    elif ascent.adaptive:
        scaled = scaled_by_weights(weights, grads)
        move_(weights, scaled_by_weights(weights, scaled), ascent.rho, global_norm(scaled))
    else:
        move_(weights, grads, ascent.rho, global_norm(grads))


def _row(m: int, ascent_steps: int, shares: Tensor, rises: Tensor) -> Row:
    """Return the mean over subsets.

    Args:
        m: Images per subset.
        ascent_steps: Number of steps before the rises were measured.
        shares: Each subset's share of the sample, float64 [K]; they sum to 1.
        rises: The rise of loss and error of each subset, float64 [K, 2].
    """
    means = shares @ rises
    standard_error = None
    if len(shares) > 1:
        # For equal shares this is the standard deviation over sqrt(K).
        deviations = shares * (rises[:, 0] - means[0])
        standard_error = math.sqrt(len(shares) / (len(shares) - 1) * float(deviations @ deviations))
    return Row(
        m=m,
        ascent_steps=ascent_steps,
        loss_rise=float(means[0]),
        loss_rise_standard_error=standard_error,
        error_rise_points=float(means[1]),
        num_subsets=len(shares),
    )


def _check(
    rho: float, ms: Sequence[int], ascent_steps: Sequence[int], ascent_step_size: float, adaptive: bool
) -> None:
    if not 0 <= rho < math.inf:
        raise ValueError(f"rho must be finite and >= 0, got {rho}")
    if any(m < 1 for m in ms):
        raise ValueError(f"every m must be at least 1, got {list(ms)}")
    if not ascent_steps or min(ascent_steps) < 1:
        raise ValueError(f"ascent_steps must be one or more numbers of at least 1, got {list(ascent_steps)}")
    if not 0 < ascent_step_size < math.inf:
        raise ValueError(f"ascent_step_size must be finite and greater than 0, got {ascent_step_size}")
    if adaptive and max(ascent_steps) > 1:
        raise ValueError(f"adaptive=True takes ascent_steps=[1] only, got {list(ascent_steps)}")
