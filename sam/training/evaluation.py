"""A model's errors on a split: top-1, top-5, per class, and the calibration error of its confidence."""

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from sam.training.distributed import World
from sam.training.forward_backward import at_least_float32, count_errors
from sam.training.precision import Precision
from sam.training.sharding import whole_weights

NUM_BINS = 15


@dataclasses.dataclass(frozen=True)
class CalibrationBin:
    """The images in one of 15 equal bins of the confidence, the probability of the predicted class."""

    num_images: int
    confidence_pct: float  # mean
    accuracy_pct: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The results of one evaluation of a split."""

    loss: float  # mean cross entropy, without label smoothing
    error_pct: float
    top5_error_pct: float
    class_error_pct: list[float]  # one per class; nan for a class without images
    calibration_error_pct: float
    calibration_bins: list[CalibrationBin]  # sorted by confidence; bins without images are left out
    num_images: int


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    num_classes: int,
    device: torch.device,
    precision: Precision,
    world: World,
) -> Evaluation:
    """Evaluate a model, in evaluation mode, on this process's batches; sum the results over processes.

    calibration_error_pct is the expected calibration error of Guo et al. (2017), Eq. 5, over 15 equal bins of
    the confidence: the sum over bins of (share of images) * |accuracy - mean confidence|.

    Args:
        model: Maps images to logits; left in training mode.
        batches: This process's part of the split: images, float [B, C, H, W], and targets, int64 [B].
        num_classes: The number of classes, K.
        device: The device that holds the sums until the end.
        precision: The autocast of the forward pass.
        world: The processes that share the split.
    """
    sizes = {"totals": 3, "class_errors": num_classes, "class_sizes": num_classes}
    sizes |= {"bin_sizes": NUM_BINS, "bin_confidence": NUM_BINS, "bin_correct": NUM_BINS}
    sums = torch.zeros(sum(sizes.values()), dtype=torch.float64, device=device)
    model.eval()
    with whole_weights(model):
        for images, targets in batches:
            with precision.autocast():
                logits = model(images)
            sums += torch.cat(_sums(at_least_float32(logits), targets, num_classes))
    model.train()
    parts = dict(zip(sizes, world.sum_(sums).cpu().split(list(sizes.values())), strict=True))
    loss, errors, top5_errors = parts["totals"].tolist()
    num_images = int(parts["class_sizes"].sum())
    gaps = (parts["bin_correct"] - parts["bin_confidence"]).abs().sum()
    return Evaluation(
        loss=loss / num_images,
        error_pct=100 * errors / num_images,
        top5_error_pct=100 * top5_errors / num_images,
        class_error_pct=(100 * parts["class_errors"] / parts["class_sizes"]).tolist(),
        calibration_error_pct=100 * float(gaps) / num_images,
        calibration_bins=[
            CalibrationBin(int(size), 100 * confidence / size, 100 * correct / size)
            for size, confidence, correct in zip(
                *(parts[f"bin_{name}"].tolist() for name in ("sizes", "confidence", "correct")), strict=True
            )
            if size
        ],
        num_images=num_images,
    )


@torch.no_grad()
def predict(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: Precision) -> Tensor:
    """Return the most likely class of every image, int64 [N], with the model in evaluation mode.

    Args:
        model: Maps images to logits; left in training mode.
        batches: Images, float [B, C, H, W], and targets, which are ignored.
        precision: The autocast of the forward pass.
    """
    model.eval()
    predictions = []
    for images, _ in batches:
        with precision.autocast():
            predictions.append(model(images).argmax(1))
    model.train()
    return torch.cat(predictions)


def _sums(logits: Tensor, targets: Tensor, num_classes: int) -> list[Tensor]:
    """Return the sums of one batch, float64, in the order of `sizes` in evaluate()."""
    loss = functional.cross_entropy(logits, targets, reduction="sum").double()
    confidence, predicted = logits.double().softmax(1).max(1)
    correct = (predicted == targets).double()

    def per_class(values: Tensor) -> Tensor:
        return sums_by_group(targets, values, num_classes)

    # The bins are (0, 1/15], (1/15, 2/15], ..., as in Guo et al.
    bins = ((confidence * NUM_BINS).ceil() - 1).nan_to_num(0).long().clamp(0, NUM_BINS - 1)

    def per_bin(values: Tensor) -> Tensor:
        return sums_by_group(bins, values, NUM_BINS)

    return [
        torch.stack([loss, *count_errors(logits, targets)]),
        per_class(1 - correct),
        per_class(torch.ones_like(correct)),
        per_bin(torch.ones_like(correct)),
        per_bin(confidence),
        per_bin(correct),
    ]


def sums_by_group(groups: Tensor, values: Tensor, num_groups: int) -> Tensor:
    """Return the sum of the values of each group, float64 [num_groups].

    Args:
        groups: The group of each value, 0 .. num_groups - 1, int64 [N].
        values: float64 [N].
        num_groups: The number of groups.
    """
    if groups.device.type == "cpu":
        return torch.bincount(groups, values, num_groups)
    # On a GPU, bincount adds in no fixed order, and the host waits for it.
    return one_hot_sums(groups, values, num_groups)


def one_hot_sums(groups: Tensor, values: Tensor, num_groups: int) -> Tensor:
    """Return what sums_by_group() returns, from a one-hot table [N, num_groups]; the host does not wait."""
    members = groups[:, None] == torch.arange(num_groups, device=groups.device)
    # Not a product: a value that is not finite belongs to its own group only.
    return torch.where(members, values[:, None], 0).sum(0)
