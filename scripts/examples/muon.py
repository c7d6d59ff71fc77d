"""SAM around Muon, which updates matrices only, and AdamW for all other parameters.

Watch out for two SAM optimizers: each would have its own ball, and eps would be longer than rho. One base
optimizer that contains both gives one ball.

Needs `pip install .` in this repository.
"""

from typing import Any

import torch
from torch import Tensor, nn

from sam.optim import SAM


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for the first group, AdamW for the second; both use the groups and the state of this one."""

    def __init__(self, matrices: list[Tensor], others: list[Tensor], lr: float) -> None:
        self.parts = [torch.optim.Muon(matrices, lr=lr), torch.optim.AdamW(others, lr=lr)]
        super().__init__([part.param_groups[0] for part in self.parts], {})

    def step(self, closure: Any = None) -> Any:
        """Make a step of both."""
        for part, group in zip(self.parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state  # load_state_dict() replaces them
            part.step()


def train(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Train on each batch once and return the losses of the first passes."""
    weights = list(model.parameters())
    base = MuonAndAdamW([w for w in weights if w.ndim == 2], [w for w in weights if w.ndim != 2], lr=0.02)
    optimizer = SAM(weights, base, rho=0.05)
    losses = []
    for inputs, targets in batches:
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.first_step()  # to w + eps
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.second_step()  # back to w, then the steps of Muon and AdamW
        losses.append(loss.item())
    return losses


def main() -> list[float]:
    """Train on points whose class is the largest of their first three coordinates."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    losses = train(model, [(batch, batch[:, :3].argmax(dim=1)) for batch in torch.randn(100, 64, 10)])
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
