"""SAM in a plain loop: SGD, a cosine schedule, gradient clipping and batch norm.

Watch out for batch norm: both passes would update its running statistics. RunningStatistics keeps those of
the first pass, which is at the weights that are evaluated.

Needs `pip install .` in this repository.
"""

import torch
from torch import Tensor, nn

from sam.optim import SAM, RunningStatistics


def make_batches(num_batches: int) -> list[tuple[Tensor, Tensor]]:
    """Return batches of points whose class is the largest of their first three coordinates."""
    return [(batch, batch[:, :3].argmax(dim=1)) for batch in torch.randn(num_batches, 64, 10)]


def train(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Train on each batch once and return the losses of the first passes."""
    loss_of = nn.CrossEntropyLoss()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=len(batches))
    statistics = RunningStatistics(model)
    losses = []
    for inputs, targets in batches:
        statistics.begin()
        loss = loss_of(model(inputs), targets)
        statistics.keep()
        loss.backward()
        optimizer.first_step()  # to w + eps
        loss_of(model(inputs), targets).backward()
        statistics.write()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.second_step()  # back to w, then SGD's step
        scheduler.step()
        losses.append(loss.item())
    return losses


def main() -> list[float]:
    """Train a small network and print how its loss fell."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
    losses = train(model, make_batches(60))
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
