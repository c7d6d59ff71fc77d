"""Lanczos iteration with full reorthogonalisation: the extreme eigenvalues and the density of a spectrum.

Golub and Van Loan (2013), Matrix Computations, chapter 10. Density by quadrature: Golub and Welsch
(1969), used as in Ghorbani et al. (2019), An Investigation into Neural Net Optimization via Hessian
Eigenvalue Density.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
ROWS = 16  # the basis grows in blocks of 16 vectors, so that existing vectors are never copied


class Lanczos:
    """One Lanczos run on a symmetric matrix H: multiply `vector` by H, pass the product to add(), repeat.

    After m steps, H Q = Q' A with orthonormal Q [P, m], Q' = Q and the next vector, and A [m + 1, m]. The
    eigenvalues of A's upper part (made symmetric) are the Ritz values. All coefficients of A are kept in
    float64, not only its three diagonals: the residuals then include the rounding of float32 products.
    Every product is made orthogonal to all earlier vectors, twice (once is not enough: Parlett 1998, 6.9).
    If a product lies in their span, up to rounding, the next vector is an arbitrary orthogonal one: a fresh
    start. Before a fresh start, a run finds only one direction of a repeated eigenvalue's eigenspace.

    Args:
        start: Start vector, floating point [P], not zero, of any length.
        generator: A CPU generator; it draws the vectors of fresh starts.
    """

    def __init__(self, start: Tensor, generator: torch.Generator) -> None:
        self.size = 0  # steps made
        self._generator = generator
        self._blocks: list[Tensor] = []
        self._coefficients = np.zeros((1, 0))
        self._largest = 0.0  # length of a product
        self.vector = self._append(start / _norm(start))

    def add(self, product: Tensor) -> None:
        """Make one step with the product H times `vector`, and set `vector` to the next one.

        After P steps there is no next vector, and `vector` stays.

        Args:
            product: [P]; overwritten.

        Raises:
            ValueError: If the product is not finite.
        """
        length = _norm(product)
        if not np.isfinite(length):
            raise ValueError(
                "a product with the Hessian is not finite; look at other weights, or use float64"
            )
        self._largest = max(self._largest, length)
        self.size += 1
        coefficients = self._make_orthogonal(product)
        norm = _norm(product)
        if norm <= 10 * torch.finfo(product.dtype).eps * self._largest:
            norm = 0.0
        old, self._coefficients = self._coefficients, np.zeros((self.size + 1, self.size))
        self._coefficients[: self.size, :-1] = old
        self._coefficients[:, -1] = [*coefficients, norm]
        if self.size < len(product):
            self.vector = self._append(product.div_(norm) if norm else self._fresh(product))

    def ritz(self, num_steps: int) -> tuple[Array, Array, Array]:
        """Return the Ritz values after the first num_steps steps.

        Returns:
            Ritz values [num_steps], descending; the residuals ||H v - lambda v||_2 of their unit vectors, up
            to a few roundings of H v; and the coordinates of these vectors in the basis, one per column.
        """
        square = self._coefficients[:num_steps, :num_steps]
        values, coordinates = np.linalg.eigh((square + square.T) / 2)
        values, coordinates = values[::-1], coordinates[:, ::-1]
        images = self._coefficients[: num_steps + 1, :num_steps] @ coordinates
        images[:num_steps] -= values * coordinates
        return values, np.linalg.norm(images, axis=0), coordinates

    def quadrature(self, num_steps: int) -> tuple[Array, Array]:
        """Return nodes and weights, each [num_steps]: v^T f(H) v ~ sum_i weight_i f(node_i) for the start v.

        This is exact for polynomials f of degree below 2 num_steps. Weights are >= 0 and sum to 1; nodes
        found after a fresh start have weight 0.
        """
        values, _, coordinates = self.ritz(num_steps)
        return values, coordinates[0] ** 2

    def ritz_vectors(self, count: int) -> Tensor:
        """Return the unit vectors of the largest Ritz values after all steps, [count, P]."""
        _, _, coordinates = self.ritz(self.size)
        first = self._blocks[0]
        columns = torch.as_tensor(coordinates[:, :count].T.copy(), dtype=first.dtype, device=first.device)
        vectors = first.new_zeros(count, first.shape[1])
        for start, block in self._basis(self.size):
            vectors += columns[:, start : start + len(block)] @ block
        return torch.nn.functional.normalize(vectors)

    def _append(self, vector: Tensor) -> Tensor:
        """Copy a vector into the basis; return the copy."""
        row = self.size % ROWS
        if row == 0:
            rows = min(ROWS, len(vector) - self.size)
            self._blocks.append(vector.new_empty(rows, len(vector)))
        return self._blocks[-1][row].copy_(vector)

    def _basis(self, count: int) -> list[tuple[int, Tensor]]:
        """Return the first vectors of the basis, as (number of the first row, rows)."""
        return [
            (i * ROWS, block[: count - i * ROWS]) for i, block in enumerate(self._blocks) if i * ROWS < count
        ]

    def _make_orthogonal(self, vector: Tensor) -> list[float]:
        """Subtract a vector's projection onto the basis, in place; return its coefficients."""
        total = np.zeros(self.size)
        for _ in range(2):
            for start, block in self._basis(self.size):
                parts = block @ vector
                vector.sub_(parts @ block)
                total[start : start + len(block)] += parts.double().cpu().numpy()
        return list(total)

    def _fresh(self, like: Tensor) -> Tensor:
        """Return a unit vector orthogonal to the basis, in an arbitrary direction."""
        vector = random_vector(like, self._generator)
        # If few directions are left, the remainder is short, so it is normalised and made orthogonal again.
        for _ in range(2):
            vector /= _norm(vector)
            self._make_orthogonal(vector)
        return vector / _norm(vector)


def random_vector(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal numbers in a tensor's shape, the same for every dtype and device."""
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def _norm(vector: Tensor) -> float:
    """Return the 2-norm, summed in float64."""
    norm: float = torch.linalg.vector_norm(vector, dtype=torch.float64).item()
    return norm
