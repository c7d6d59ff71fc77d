"""Time of SAM without its passes for a thousand small parameters, and of a loop over tensors and of SGD."""

from typing import Any

import torch
from torch import Tensor

from sam.optim import SAM
from scripts.benchmarks.plain_loop import PlainSAM
from scripts.benchmarks.timing import alternate

NUM_TENSORS, SHAPE, NUM_UPDATES = 1000, (16, 16), 5


def make_parameters() -> list[Tensor]:
    """Return parameters with gradients."""
    torch.manual_seed(0)
    weights = [torch.randn(SHAPE, requires_grad=True) for _ in range(NUM_TENSORS)]
    for weight in weights:
        weight.grad = torch.randn(SHAPE)
    return weights


def benchmark_optimizer(num_blocks: int) -> list[dict[str, Any]]:
    """Time blocks of updates without passes: the gradients stay the same."""
    arguments: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "foreach": True}
    base = torch.optim.SGD(make_parameters(), **arguments)
    sam = SAM(make_parameters(), torch.optim.SGD, rho=0.05, **arguments)
    weights = make_parameters()
    plain = PlainSAM(weights, torch.optim.SGD(weights, **arguments), rho=0.05)

    def base_alone() -> None:
        for _ in range(NUM_UPDATES):
            base.step()

    def ours() -> None:
        for _ in range(NUM_UPDATES):
            sam.first_step(zero_grad=False)
            sam.second_step(zero_grad=False)

    def per_tensor() -> None:
        for _ in range(NUM_UPDATES):
            plain.first_step(zero_grad=False)
            plain.second_step(zero_grad=False)

    variants = {"base optimizer alone": base_alone, "SAM": ours, "SAM, tensor by tensor": per_tensor}
    seconds = alternate(variants, num_blocks)
    return [
        {
            "variant": name,
            "update_ms": round(1000 * value / NUM_UPDATES, 3),
            "time_over_ours": round(value / seconds["SAM"], 2),
        }
        for name, value in seconds.items()
    ]
