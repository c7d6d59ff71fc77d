"""SAM in a LightningModule, with manual optimization.

Watch out for self.optimizers(): it returns a wrapper that counts calls of step() in trainer.global_step. With
use_pl_optimizer=False it returns SAM itself; the updates are the same, but global_step stays 0.

Needs `pip install . lightning` in this repository.
"""

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sam.optim import SAM


class Classifier(lightning.LightningModule):
    """A small network, trained by SAM."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
        self.losses: list[float] = []

    def configure_optimizers(self) -> SAM:
        """Return SAM around SGD."""
        return SAM(self.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Run both passes and make the step."""

        def closure() -> Tensor:
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.manual_backward(loss)
            return loss.detach()

        optimizer: Any = self.optimizers()
        self.losses.append(float(optimizer.step(closure)))  # calls it at w and at w + eps


def main() -> list[float]:
    """Train on points whose class is the largest of their first three coordinates."""
    torch.manual_seed(0)
    module, points = Classifier(), torch.randn(60 * 64, 10)
    data = TensorDataset(points, points[:, :3].argmax(dim=1))
    quiet: Any = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(max_epochs=1, logger=False, **quiet)
    trainer.fit(module, DataLoader(data, batch_size=64))
    print(f"loss {module.losses[0]:.3f} -> {module.losses[-1]:.3f}, {trainer.global_step} updates")
    return module.losses


if __name__ == "__main__":
    main()
