"""The sums that SAM's rules return: PASS_SUMS, as any rule, and further sums about the perturbation."""

import torch
from torch import Tensor

from sam.training.forward_backward import PASS_SUMS

NUM_IMAGES, IMAGE_PASSES = PASS_SUMS.index("num_images"), PASS_SUMS.index("image_passes")
SAM_SUMS = (
    *PASS_SUMS,
    "perturbed_loss",
    "perturbed_errors",
    "num_perturbed_images",
    "grad_norm",
    "num_perturbed",  # micro-batches whose ascent gradient was finite
    "num_unperturbed",  # micro-batches whose ascent gradient was not finite
    "loss_rise",  # from the first pass to the last, if both use the same images
    "num_rise_images",
    "cosine",
    "num_cosines",
)


def unperturbed_sums(clean: Tensor) -> Tensor:
    """Return the SAM_SUMS of one pass without perturbation, given its PASS_SUMS."""
    return torch.cat([clean, clean.new_zeros(len(SAM_SUMS) - len(PASS_SUMS))])


def sam_sums(clean: Tensor, perturbed: Tensor, norm: Tensor, cosine: Tensor | None = None) -> Tensor:
    """Return SAM_SUMS, float64.

    Args:
        clean: PASS_SUMS of the first pass; its image_passes count all passes but the last. Changed in place.
        perturbed: PASS_SUMS of the last pass.
        norm: Norm of the first pass's gradient, 0-dimensional; left out of the sums if not finite.
        cosine: Cosine between the gradients of both passes, 0-dimensional; None if it is not known.
    """
    if cosine is None:
        cosine = torch.full_like(norm, torch.nan)
    clean[IMAGE_PASSES] += perturbed[IMAGE_PASSES]
    is_finite = norm.isfinite().double()
    seen = torch.stack([perturbed[0], perturbed[1], perturbed[NUM_IMAGES]])
    norms = torch.stack([norm.double().nan_to_num(0, 0, 0), is_finite, 1 - is_finite])
    is_same = (clean[NUM_IMAGES] == perturbed[NUM_IMAGES]).double()
    rises = torch.stack([(perturbed[0] - clean[0]) * is_same, perturbed[NUM_IMAGES] * is_same])
    cosines = torch.stack([cosine.double().nan_to_num(0, 0, 0), cosine.isfinite().double()])
    return torch.cat([clean, seen, norms, rises, cosines])
