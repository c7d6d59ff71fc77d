"""SAM with accelerate: gradient accumulation and clipping.

Watch out for the wrapper: prepare() hides perturbed_weights() and first_step(). They are those of
`optimizer.optimizer`, which is SAM itself. step() and zero_grad() are called on the wrapper, as always.

Needs `pip install . accelerate` in this repository.
"""

from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sam.optim import SAM


def train(model: nn.Module, loader: Any, accelerator: Accelerator) -> list[float]:
    """Train on each batch once and return the losses of the first passes."""
    optimizer: Any = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    losses, micro_batches = [], []

    def backward(inputs: Tensor, targets: Tensor) -> float:
        loss = nn.functional.cross_entropy(model(inputs), targets)
        accelerator.backward(loss)
        return loss.item()

    for batch in loader:
        with accelerator.accumulate(model):
            micro_batches.append(batch)
            losses.append(backward(*batch))
            if accelerator.sync_gradients:  # the first pass over all micro-batches is done
                with optimizer.optimizer.perturbed_weights():
                    while micro_batches:
                        again = micro_batches.pop(0)
                        with accelerator.no_sync(model) if micro_batches else nullcontext():
                            backward(*again)
                accelerator.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
            optimizer.zero_grad()
    return losses


def main() -> list[float]:
    """Train on points whose class is the largest of their first three coordinates."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    points = torch.randn(120 * 64, 10)
    loader = DataLoader(TensorDataset(points, points[:, :3].argmax(dim=1)), batch_size=64)
    losses = train(model, loader, Accelerator(gradient_accumulation_steps=2))
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
