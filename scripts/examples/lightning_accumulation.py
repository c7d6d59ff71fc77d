"""SAM in a LightningModule with gradient accumulation.

Watch out for accumulate_grad_batches, which SAM refuses: its closure has only the last micro-batch. Here the
closure has all of them, with manual optimization.
Needs `pip install . lightning` in this repository.
"""

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sam.optim import SAM


class Classifier(lightning.LightningModule):
    """A small network, trained by SAM with two micro-batches per update."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
        self.micro_batches, self.losses = list[tuple[Tensor, Tensor]](), list[float]()

    def configure_optimizers(self) -> SAM:
        """Return SAM around SGD."""
        return SAM(self.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Make an update with every second batch, and with the last batch of the epoch."""
        self.micro_batches.append(batch)
        if len(self.micro_batches) == 2 or self.trainer.is_last_batch:
            optimizer: Any = self.optimizers()
            self.losses.append(optimizer.step(self.one_pass))  # calls it at w and at w + eps
            self.micro_batches.clear()

    def one_pass(self) -> float:
        """Accumulate the gradients of the micro-batches, and return the loss of the last one."""
        for inputs, targets in self.micro_batches:
            loss = nn.functional.cross_entropy(self.net(inputs), targets)
            self.manual_backward(loss / len(self.micro_batches))
        return loss.item()


def main() -> list[float]:
    """Train on points whose class is the largest of their first three coordinates."""
    torch.manual_seed(0)
    module, points = Classifier(), torch.randn(120 * 64, 10)
    data = DataLoader(TensorDataset(points, points[:, :3].argmax(dim=1)), batch_size=64)
    quiet: Any = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    lightning.Trainer(max_epochs=1, logger=False, **quiet).fit(module, data)
    print(f"loss {module.losses[0]:.3f} -> {module.losses[-1]:.3f}")
    return module.losses


if __name__ == "__main__":
    main()
