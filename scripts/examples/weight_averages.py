"""SAM with averages of the weights: an EMA over all updates, and SWA at the end of training.

Watch out for update_parameters(): call it after second_step(). Before, it would average w + eps.
Batch norm needs statistics for the averaged weights: update_bn() computes them after training.

Needs `pip install .` in this repository.
"""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

from sam.optim import SAM


def make_batches(num_batches: int) -> list[tuple[Tensor, Tensor]]:
    """Return batches of points whose class is the largest of their first three coordinates."""
    return [(batch, batch[:, :3].argmax(dim=1)) for batch in torch.randn(num_batches, 64, 10)]


def train(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], swa_start: int
) -> tuple[list[float], AveragedModel, AveragedModel]:
    """Train on each batch once; return the losses of the first passes, the EMA, and the SWA model."""
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    scheduler = SWALR(optimizer, swa_lr=0.02, anneal_epochs=5)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    swa = AveragedModel(model)
    losses = []
    for number, (inputs, targets) in enumerate(batches):
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.first_step()  # to w + eps
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.second_step()  # back to w, then SGD's step
        ema.update_parameters(model)
        if number >= swa_start:
            swa.update_parameters(model)
            scheduler.step()
        losses.append(loss.item())
    for average in (ema, swa):
        update_bn(batches, average)
    return losses, ema, swa


def main() -> list[float]:
    """Train a small network with batch norm and print how its loss fell."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
    losses, _, _ = train(model, make_batches(60), swa_start=40)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
