"""The largest eigenvalue and the trace of each layer's block on the diagonal of the Hessian."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from sam.analysis.hessian import hessian_spectrum
from sam.analysis.sample import SampleLoss


@dataclass(frozen=True)
class LayerSpectrum:
    """The measurements of one layer's block.

    Attributes:
        name: Name of the layer in the network; "" for weights of the network itself.
        num_parameters: Number of its weights and biases.
        lambda_max: The largest eigenvalue of the block.
        residual: ||H v - lambda v||_2 of this eigenvalue and its unit eigenvector.
        trace: The trace of the block.
        trace_standard_error: None for a single probe.
    """

    name: str
    num_parameters: int
    lambda_max: float
    residual: float
    trace: float
    trace_standard_error: float | None


def layer_spectra(sample: SampleLoss, *, probes: int = 4, seed: int = 0) -> list[LayerSpectrum]:
    """Return the spectrum of the block of each layer with weights, in the order of the network.

    The block of a layer is the Hessian with respect to the weights and biases of this layer, with all others
    fixed. The traces of all blocks add up to the trace of the whole Hessian. Its largest eigenvalue is at
    least that of each block.

    Args:
        sample: The loss; see hessian_spectrum.
        probes: Number of probes of each trace, at least 1; a standard error needs 2.
        seed: Seed of the probes.

    Raises:
        ValueError: If a product is not finite.
    """
    spectra = []
    for name, weights in _layers(sample):
        block = copy.copy(sample)
        block.weights = weights
        # v^T H v, the only number that the trace needs of a probe, is exact after one step.
        spectrum = hessian_spectrum(block, top=1, steps=1, probes=probes, seed=seed)
        spectra.append(
            LayerSpectrum(
                name=name,
                num_parameters=sum(weight.numel() for weight in weights),
                lambda_max=spectrum.eigenvalues[0],
                residual=spectrum.residuals[0],
                trace=spectrum.trace,
                trace_standard_error=spectrum.trace_standard_error,
            )
        )
    return spectra


def num_layers(sample: SampleLoss) -> int:
    """Return the number of layers that layer_spectra measures."""
    return len(list(_layers(sample)))


def _layers(sample: SampleLoss) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield the name and the weights of each layer; weights of several layers belong to the first one."""
    seen: set[Tensor] = set()
    for name, layer in sample.network.named_modules():
        own: list[Tensor] = [
            weight
            for weight in layer.parameters(recurse=False)
            if weight.requires_grad and weight not in seen
        ]
        seen.update(own)
        if own:
            yield name, own
