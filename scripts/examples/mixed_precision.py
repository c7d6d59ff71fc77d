"""SAM in mixed precision: autocast to float16 with a GradScaler, on a GPU or a CPU.

Watch out for scaler.unscale_(): call it after the second pass only. The scaler unscales once per update, so
after an earlier call, the optimizer would step with the scaled second gradient.

Needs `pip install .` in this repository.
"""

import torch
from torch import Tensor, nn

from sam.optim import SAM


def make_batches(num_batches: int, device: str) -> list[tuple[Tensor, Tensor]]:
    """Return batches of points whose class is the largest of their first three coordinates."""
    points = torch.randn(num_batches, 64, 10, device=device)
    return [(batch, batch[:, :3].argmax(dim=1)) for batch in points]


def train(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], scaler: torch.amp.GradScaler
) -> list[float]:
    """Train on each batch once and return the losses of the first passes."""
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    losses = []
    for inputs, targets in batches:
        with torch.autocast(inputs.device.type, dtype=torch.float16):
            loss = nn.functional.cross_entropy(model(inputs), targets)
        scaler.scale(loss).backward()
        with optimizer.perturbed_weights():  # eps does not depend on the scale
            with torch.autocast(inputs.device.type, dtype=torch.float16):
                second_loss = nn.functional.cross_entropy(model(inputs), targets)
            scaler.scale(second_loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        scaler.step(optimizer)  # skips the step after a float16 overflow; w is restored in any case
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def main() -> list[float]:
    """Train a small network and print how its loss fell."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3)).to(device)
    losses = train(model, make_batches(60, device), torch.amp.GradScaler(device))
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f} on {device}")
    return losses


if __name__ == "__main__":
    main()
