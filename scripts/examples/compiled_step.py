"""SAM in an update that torch.compile compiles as a whole.

Watch out for the learning rate: if a schedule changes a number, torch compiles again in each update, and soon
gives up. Make it a tensor. The graph has breaks at backward(), zero_grad() and step(); they are torch's own.

Needs `pip install .` in this repository.
"""

import torch
from torch import Tensor, nn

from sam.optim import SAM


def train(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Train on each batch once and return the losses of the first passes."""
    rate = torch.tensor(0.1)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=rate, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=len(batches))

    @torch.compile
    def update(inputs: Tensor, targets: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.first_step()  # to w + eps
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.second_step()  # back to w, then SGD's step
        return loss.detach()

    losses = []
    for inputs, targets in batches:
        losses.append(update(inputs, targets).item())
        scheduler.step()
    return losses


def main() -> list[float]:
    """Train on points whose class is the largest of their first three coordinates."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    losses = train(model, [(batch, batch[:, :3].argmax(dim=1)) for batch in torch.randn(60, 64, 10)])
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
