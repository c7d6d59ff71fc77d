"""The Hessian of the loss over a sample, by exact products with vectors: eigenvalues, trace, density.

H v is the derivative of g(w) . v with v fixed (Pearlmutter 1994): the gradient's graph is differentiated.
Why not a library: HessianLinearOperator of curvlinops 3.0.1 makes the same products (the tests compare ours
with it), but it recomputes the gradient for each product, and its Lanczos does not reorthogonalise.
hessian-eigenthings 1.0.0a5 recomputes it, too. scripts/benchmarks/hessian_cost.py measures the cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from sam.analysis.compiled_product import Product
from sam.analysis.lanczos import Array, Lanczos, random_vector
from sam.analysis.sample import SampleLoss

LONGEST = 200  # largest number of steps of a run whose largest eigenvalues have not converged


@dataclass(frozen=True)
class Spectrum:
    """The measured eigenvalues and density of a Hessian with P rows; see hessian_spectrum."""

    eigenvalues: list[float]  # the algebraically largest, descending
    residuals: list[float]  # ||H v - lambda v||_2 of each eigenvalue and its unit eigenvector
    smallest: float  # lowest Ritz value of all probes: the smallest eigenvalue is no higher
    trace: float
    trace_standard_error: float | None  # None for a single probe
    nodes: Array  # [probes, steps], descending
    weights: Array  # [probes, steps]; the weights of each probe sum to 1
    eigenvectors: Tensor  # [k, P], unit length, entries in the order of the sample's weights
    num_products: int


class SampleHessian:
    """Products of the Hessian of a sample's loss with vectors, exact over the whole sample, chunk by chunk.

    The gradient of a chunk is a graph; each product differentiates it once. As many graphs as fit in memory
    are kept between calls, which saves a third of a product's time. The others are recomputed one at a time,
    once per call for all its vectors. The weights must not change between calls.

    Args:
        sample: The loss; its network must be twice differentiable: not compiled, no gradient checkpointing.
        memory_bytes: Memory for the kept graphs, >= 0. The graph of one more chunk is needed in addition.
        compiled: The compiled product for chunks of full size (see compiled_product). It keeps no graph. None
            for eager products.
    """

    def __init__(self, sample: SampleLoss, memory_bytes: int = 0, compiled: Product | None = None) -> None:
        self.sample = sample
        self._compiled = compiled
        self.num_weights = sum(weight.numel() for weight in sample.weights)
        self._chunks = list(sample.chunks())
        keeps = memory_bytes and compiled is None
        num_kept = min(memory_bytes // self._graph_bytes(), len(self._chunks)) if keeps else 0
        self._kept = [self._gradient(*chunk) for chunk in self._chunks[:num_kept]]
        self.num_products = 0  # so far

    def products(self, vectors: Tensor) -> Tensor:
        """Return H v for every row v.

        Args:
            vectors: [k, P], in the weights' precision; left unchanged.
        """
        self.num_products += len(vectors)
        total = torch.zeros_like(vectors)
        for number, chunk in enumerate(self._chunks):
            if self._compiled and len(chunk[1]) == len(self._chunks[0][1]):
                for row, vector in enumerate(vectors):
                    total[row] += self._compiled(*chunk, vector)
                continue
            is_kept = number < len(self._kept)
            gradient = self._kept[number] if is_kept else self._gradient(*chunk)
            for row, vector in enumerate(vectors):
                is_last = row == len(vectors) - 1
                total[row] += self._product(gradient, vector, retain=is_kept or not is_last)
        return total

    def _gradient(self, images: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient of a chunk's share of the loss, as a function of the weights."""
        with sdpa_kernel(SDPBackend.MATH):  # the fused attentions can be differentiated only once
            loss = self.sample.chunk_loss(images, targets)
        return torch.autograd.grad(loss, self.sample.weights, create_graph=True, materialize_grads=True)

    def _product(self, gradient: Sequence[Tensor], vector: Tensor, retain: bool) -> Tensor:
        """Return the derivative of gradient . vector, [P]."""
        weights = self.sample.weights
        parts = vector.split([weight.numel() for weight in weights])
        directions = [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]
        product = torch.autograd.grad(
            gradient, weights, directions, retain_graph=retain, materialize_grads=True
        )
        return torch.cat([part.reshape(-1) for part in product])

    def _graph_bytes(self) -> int:
        """Return the memory of the first chunk's graph."""
        sizes = {}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()  # the tensor itself would keep its own graph alive

        with saved_tensors_hooks(count, lambda tensor: tensor):
            gradient = self._gradient(*self._chunks[0])
        del gradient
        return max(sum(sizes.values()), 1)


def num_products(top: int, steps: int, probes: int) -> int:
    """Return the largest number of products that hessian_spectrum can need; usually it is probes * steps."""
    return max(steps, top, LONGEST) + (probes - 1) * steps


def basis_bytes(sample: SampleLoss, steps: int) -> int:
    """Return the largest memory of the vectors of one probe; usually it is the memory of `steps` vectors."""
    longest = max(steps, LONGEST)
    return longest * sum(weight.numel() * weight.element_size() for weight in sample.weights)


def hessian_spectrum(
    sample: SampleLoss,
    *,
    top: int = 5,
    steps: int = 90,
    probes: int = 4,
    seed: int = 0,
    tolerance: float = 1e-3,
    memory_bytes: int = 2**30,
    compiled: Product | None = None,
) -> Spectrum:
    """Return the largest eigenvalues of the Hessian, its trace and its spectral density.

    Stochastic Lanczos quadrature: from each of several random unit vectors v, Lanczos finds nodes and weights
    with v^T f(H) v ~ sum_i weight_i f(node_i), and E v^T f(H) v = tr f(H) / P (Ghorbani et al. 2019, section
    2). So the density of eigenvalues is the mean over probes of sum_i weight_i delta(x - node_i), and the
    trace is P times the mean of v^T H v. The first probe's run also gives the largest eigenvalues. It
    continues until their residuals are at most tolerance times the largest absolute Ritz value, or until
    LONGEST steps are made, so check the residuals. An exact eigenvalue lies within the
    residual of each returned value.

    Limits: a repeated eigenvalue is found only once (unless the run exhausts all directions). An eigenvalue
    is missed if the start vector is by chance orthogonal to its eigenvector. Single eigenvalues inside the
    spectrum are not resolved. The standard error says how the trace varies with the probes.

    Args:
        sample: The loss; all weights have one precision, float32 or float64, which the products use.
        top: Number of eigenvalues k, from 1 to P.
        steps: Number of steps for each probe, at least 1; at most P are made.
        probes: Number of probes, at least 1; a standard error needs 2.
        seed: Seed of the probes.
        tolerance: Largest residual of a converged eigenvalue, relative to the largest Ritz value; > 0.
        memory_bytes: Memory limit for the kept graphs (see SampleHessian), and once more the same limit for
            the vectors of probes that advance together. Both only save time. The graph of one chunk and the
            vectors of one probe (4 or 8 bytes * P * steps) are needed in any case.
        compiled: As in SampleHessian.

    Raises:
        ValueError: If an argument is out of range, or a product is not finite.
    """
    num_weights = sum(weight.numel() for weight in sample.weights)
    _check(num_weights, top, steps, probes, tolerance)
    steps = min(steps, num_weights)
    hessian = SampleHessian(sample, memory_bytes, compiled)
    seeds = np.random.SeedSequence(seed).generate_state(probes).tolist()
    like = sample.weights[0].detach().new_empty(num_weights)
    together = max(1, memory_bytes // (steps * num_weights * like.element_size()))
    quadratures = []
    with tqdm(total=probes * steps, unit="product", disable=None) as progress:
        for first in range(0, probes, together):
            runs = [_start(like, one) for one in seeds[first : first + together]]
            for _ in range(steps):
                _advance(hessian, runs, progress)
            quadratures += [run.quadrature(steps) for run in runs]
            if first == 0:
                eigenvalues, residuals = _converge(hessian, runs[0], top, tolerance, progress)
                eigenvectors = runs[0].ritz_vectors(top)
    nodes, weights = (np.stack(part) for part in zip(*quadratures, strict=True))
    trace, trace_standard_error = _trace(num_weights, nodes, weights)
    return Spectrum(
        eigenvalues=eigenvalues[:top].tolist(),
        residuals=residuals[:top].tolist(),
        smallest=min(eigenvalues.min(), nodes.min()).item(),
        trace=trace,
        trace_standard_error=trace_standard_error,
        nodes=nodes,
        weights=weights,
        eigenvectors=eigenvectors,
        num_products=hessian.num_products,
    )


def _trace(num_weights: int, nodes: Array, weights: Array) -> tuple[float, float | None]:
    """Return P times the mean of v^T H v over the probes, and its standard error."""
    each = num_weights * (nodes * weights).sum(1)
    error = each.std(ddof=1).item() / len(each) ** 0.5 if len(each) > 1 else None
    return each.mean().item(), error


def _check(num_weights: int, top: int, steps: int, probes: int, tolerance: float) -> None:
    """Check the arguments of hessian_spectrum."""
    if not 1 <= top <= num_weights:
        raise ValueError(f"top must be from 1 to the number of weights, {num_weights}, got {top}")
    if steps < 1 or probes < 1:
        raise ValueError(f"steps and probes must be at least 1, got {steps} and {probes}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be above 0, got {tolerance}; try 1e-3")


def _start(like: Tensor, seed: int) -> Lanczos:
    """Begin a run in a random direction, uniform over the sphere."""
    generator = torch.Generator().manual_seed(seed)
    return Lanczos(random_vector(like, generator), generator)


def _advance(hessian: SampleHessian, runs: Sequence[Lanczos], progress: "tqdm[None]") -> None:
    """Make a step of each run."""
    products = hessian.products(torch.stack([run.vector for run in runs]))
    for run, product in zip(runs, products, strict=True):
        run.add(product)
    progress.update(len(runs))


def _converge(
    hessian: SampleHessian, run: Lanczos, top: int, tolerance: float, progress: "tqdm[None]"
) -> tuple[Array, Array]:
    """Continue until the largest Ritz values converge or the step limit is reached; return all values."""
    most = min(max(LONGEST, top), len(run.vector))
    while True:
        if run.size >= top:
            values, residuals, _ = run.ritz(run.size)
            if run.size >= most or (residuals[:top] <= tolerance * np.abs(values).max()).all():
                return values, residuals
        _advance(hessian, [run], progress)
