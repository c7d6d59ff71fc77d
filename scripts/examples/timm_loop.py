"""SAM in the loop of timm's train.py: NativeScaler, clipping, ModelEmaV3, a schedule in updates.

Watch out for NativeScaler: it steps right after backward(), and so at w + eps. With need_update=False it only
calls backward(); the step comes after perturbed_weights(), at w.

Needs `pip install . timm` in this repository.
"""

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3, NativeScaler, dispatch_clip_grad
from torch import Tensor, nn

from sam.optim import SAM


class StepScaler(NativeScaler):
    """A NativeScaler that can step without a backward pass."""

    def step(self, optimizer: SAM, model: nn.Module) -> None:
        """Unscale, clip and step; an overflow skips the step."""
        self._scaler.unscale_(optimizer)
        dispatch_clip_grad(model.parameters(), 1.0)
        self._scaler.step(optimizer)
        self._scaler.update()


def train(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> tuple[list[float], ModelEmaV3]:
    """Train on each batch once; return the losses of the first passes, and the average of the weights."""
    base = create_optimizer_v2(model, opt="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4)
    optimizer = SAM(model.parameters(), base, rho=0.05)
    scheduler = CosineLRScheduler(optimizer, t_initial=len(batches), warmup_t=3, t_in_epochs=False)
    scaler, ema = StepScaler("cpu"), ModelEmaV3(model, decay=0.9)
    losses = []
    for number, (inputs, targets) in enumerate(batches, start=1):
        loss = nn.functional.cross_entropy(model(inputs), targets)
        scaler(loss, optimizer, need_update=False)
        with optimizer.perturbed_weights():
            scaler(nn.functional.cross_entropy(model(inputs), targets), optimizer, need_update=False)
        scaler.step(optimizer, model)
        optimizer.zero_grad()
        ema.update(model, step=number)  # after the step: of w, not of w + eps
        scheduler.step_update(num_updates=number)
        losses.append(loss.item())
    return losses, ema


def main() -> list[float]:
    """Train on points whose class is the largest of their first three coordinates."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    losses, _ = train(model, [(batch, batch[:, :3].argmax(dim=1)) for batch in torch.randn(120, 64, 10)])
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
