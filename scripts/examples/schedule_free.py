"""SAM around a schedule-free optimizer, which needs no learning-rate schedule.

Watch out for its two modes: train with the weights of optimizer.train(), evaluate and save with those of
optimizer.eval(). SAM passes both calls on. After eval(), compute batch-norm statistics again.

Needs `pip install . schedulefree` in this repository.
"""

import torch
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from sam.optim import SAM


def make_batches(num_batches: int) -> list[tuple[Tensor, Tensor]]:
    """Return batches of points whose class is the largest of their first three coordinates."""
    return [(batch, batch[:, :3].argmax(dim=1)) for batch in torch.randn(num_batches, 64, 10)]


def train(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Train on each batch once; the model then has the averaged weights. Return the first passes' losses."""
    optimizer = SAM(model.parameters(), AdamWScheduleFree, rho=0.05, lr=0.02, warmup_steps=5)
    model.train()
    optimizer.train()
    losses = []
    for inputs, targets in batches:
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.first_step()  # to w + eps, where w is the point at which the base takes its gradients
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.second_step()  # back to w, then the step
        losses.append(loss.item())
    optimizer.eval()
    update_bn(batches, model)
    model.eval()
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
