"""Rows of metrics.csv: what the sums of an epoch say."""

import math

Row = dict[str, float]


def train_means(sums: dict[str, float]) -> Row:
    """Return losses, errors in percent, and for SAM its diagnostics, from a rule's sums over an epoch."""
    num_images = sums["num_images"]
    row = {
        "train_loss": sums["loss"] / num_images,
        "train_error_pct": 100 * sums["errors"] / num_images,
        "train_top5_error_pct": 100 * sums["top5_errors"] / num_images,
    }
    if sums["num_clean"]:
        row["train_clean_error_pct"] = 100 * sums["clean_errors"] / sums["num_clean"]
    if "perturbed_loss" not in sums:
        return row
    if num_perturbed := sums["num_perturbed_images"]:
        row["perturbed_loss"] = sums["perturbed_loss"] / num_perturbed
        row["perturbed_error_pct"] = 100 * sums["perturbed_errors"] / num_perturbed
    means = {"loss_rise": "num_rise_images", "grad_norm": "num_perturbed", "cosine": "num_cosines"}
    for name, count in means.items():
        if sums[count]:
            row[name] = sums[name] / sums[count]
    # Micro-batches whose ascent gradient was not finite.
    row["unperturbed"] = sums["num_unperturbed"]
    return row


def diverged(row: Row) -> bool:
    """Return whether a loss is not finite; the row of a run without epochs has no train_loss."""
    return not all(math.isfinite(row[key]) for key in ("train_loss", "test_loss") if key in row)
