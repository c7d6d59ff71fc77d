"""SAM for both players of a GAN: two optimizers, each with its own eps.

Watch out for gradients of the other player: each pass of the generator leaves some in the discriminator.
A closure that begins with zero_grad() clears them. If none clears them, SAM raises an error.

Needs `pip install .` in this repository.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from sam.optim import SAM


def judge(optimizer: SAM, discriminator: nn.Module, real: Tensor, made: Tensor) -> float:
    """Make one pass of the discriminator."""
    optimizer.zero_grad()
    loss = softplus(-discriminator(real)).mean() + softplus(discriminator(made)).mean()
    loss.backward()
    return loss.item()


def make(optimizer: SAM, generator: nn.Module, discriminator: nn.Module, noise: Tensor) -> float:
    """Make one pass of the generator."""
    optimizer.zero_grad()
    loss = softplus(-discriminator(generator(noise))).mean()
    loss.backward()
    return loss.item()


def train(generator: nn.Module, discriminator: nn.Module, batches: Tensor, noises: Tensor) -> list[float]:
    """Train on each batch once; return how far the mean of the made points is from that of the real ones."""
    one = SAM(generator.parameters(), torch.optim.SGD, rho=0.02, lr=0.05, momentum=0.5)
    two = SAM(discriminator.parameters(), torch.optim.SGD, rho=0.02, lr=0.05, momentum=0.5)
    distances = []
    for real, noise in zip(batches, noises, strict=True):
        made = generator(noise).detach()
        two.step(partial(judge, two, discriminator, real, made))  # calls it at w and at w + eps
        one.step(partial(make, one, generator, discriminator, noise))  # both passes have the same noise
        distances.append((made.mean(dim=0) - real.mean(dim=0)).norm().item())
    return distances


def main() -> list[float]:
    """Train on points around (2, 2), and print how far the made points are from there."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
    discriminator = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    distances = train(generator, discriminator, 2 + torch.randn(400, 64, 2) / 2, torch.randn(400, 64, 4))
    print(f"distance {distances[0]:.3f} -> {distances[-1]:.3f}")
    return distances


if __name__ == "__main__":
    main()
