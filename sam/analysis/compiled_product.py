"""The product of the Hessian of a chunk's loss with a vector, as one compiled function.

torch.compile differentiates a compiled network only once. So the whole product is compiled instead of the
network: the derivative of the gradient along the vector, forward over reverse (Pearlmutter 1994).
"""

import warnings
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from sam.analysis.sample import SampleLoss

# Takes images, targets and a vector [P]; returns [P], the product with the Hessian of the chunk's share.
Product: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def compiled_product(sample: SampleLoss, tell: Callable[[str], None]) -> Product | None:
    """Return the compiled product for chunks of the size of the first one.

    Args:
        sample: The loss; its weights may be changed later.
        tell: Called with one line.

    Returns:
        The product; None if torch cannot compile it for this network. tell() then gets the reason.
    """
    product = forward_over_reverse(sample, torch.compile(_product, fullgraph=True, dynamic=False))
    direction = torch.zeros(sum(w.numel() for w in sample.weights)).to(sample.weights[0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's forward derivatives use torch.jit.script
            product(*next(sample.chunks()), direction)
    except TorchDynamoException as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        tell(f"hessian: products are not compiled, since torch cannot compile them here ({reason})")
        return None
    return product


def forward_over_reverse(
    sample: SampleLoss, compiled: Callable[..., tuple[Tensor, ...]] | None = None
) -> Product:
    """Return the product of the Hessian of a chunk's share of the loss with a vector.

    Args:
        sample: The loss.
        compiled: The function _product, compiled; None for the function itself.
    """
    call = compiled or _product
    used: dict[Tensor, str] = {weight: name for name, weight in sample.network.named_parameters()}
    names = [used[weight] for weight in sample.weights]

    def product(images: Tensor, targets: Tensor, vector: Tensor) -> Tensor:
        weights = [weight.detach() for weight in sample.weights]
        parts = vector.split([weight.numel() for weight in weights])
        directions = [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad():  # the fused attentions cannot do this
            derivatives = call(sample.network, names, weights, directions, images, targets)
        return torch.cat([part.reshape(-1) for part in derivatives]) / len(sample)

    return product


def _product(
    network: nn.Module,
    names: list[str],
    weights: list[Tensor],
    directions: list[Tensor],
    images: Tensor,
    targets: Tensor,
) -> tuple[Tensor, ...]:
    """Return the derivative of the gradient of the summed loss along the directions, one per weight."""

    def loss(changed: list[Tensor]) -> Tensor:
        logits = torch.func.functional_call(network, dict(zip(names, changed, strict=True)), (images,))
        return functional.cross_entropy(logits, targets, reduction="sum")

    derivatives: tuple[Tensor, ...] = tuple(
        torch.func.jvp(torch.func.grad(loss), (weights,), (directions,))[1]
    )
    return derivatives
