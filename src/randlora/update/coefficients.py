"""C of dense bases: a matrix where many rows share it, factor by factor for a few.

C has r·n·m entries, about as many as ΔW, and lives for one product. T rows meet n·m products with γ on their way
through the factors, so that for T well below r nothing of the size of C is written.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from randlora.update.scratch import eager_on_cpu, scratch

# Entries of C in float32 that are worked on at once: from one pass to the next they stay in a core's cache.
_PIECE = 2**20


class DenseCoefficients(NamedTuple):
    """C by its factors; row k·n + j of the matrix belongs to basis j and its column k.

    Attributes:
        lambda_: Trained diagonals Λ, n rows for each update.
        gamma: Trained diagonals Γ, likewise.
        A: r rows, shared by all bases (eq. 4), or r·n (eq. 3), ordered as those of C.
        num_bases: n.
        scaling: g of eq. 4.
        dtype: What C, or what a product with it gives, is rounded to.
    """

    lambda_: Float[Tensor, "tn r"]
    gamma: Float[Tensor, "tn m"]
    A: Float[Tensor, "rows m"]
    num_bases: int
    scaling: float
    dtype: torch.dtype

    def serves(self, rows: Tensor) -> bool:
        """Whether a product with these rows takes the factors: at most r/2 rows, and one A for all bases."""
        if type(rows.shape[0]) is not int and torch.compiler.is_exporting():
            return False  # one graph for any number of rows
        return self.A.shape[0] == self.lambda_.shape[1] and 2 * rows.shape[0] <= self.A.shape[0]

    def matrix(self) -> Float[Tensor, "rn m"]:
        """C; the next call may overwrite it."""
        shape = (self.lambda_.shape[1], self.num_bases, self.gamma.shape[1])
        memory = scratch("coefficients", self.gamma, shape, self.dtype)
        if memory is None:
            return self._entries(slice(None)).to(self.dtype).flatten(0, 1)
        for piece in self._pieces():
            memory[piece].copy_(self._entries(piece))
        return memory.flatten(0, 1)

    def mix(self, small: Float[Tensor, "T m"]) -> Float[Tensor, "T rn"]:
        """Small · Cᵀ by way of the factors."""
        mixed = (self._through_a(small) * (self.scaling * self.lambda_)).unflatten(1, (-1, self.num_bases)).sum(dim=1)
        return mixed.to(self.dtype).transpose(1, 2).flatten(1, 2)

    def unmix(self, hidden: Float[Tensor, "T rn"]) -> Float[Tensor, "T m"]:
        """Hidden · C by way of the factors."""
        return self._spread(hidden).mul_(self.gamma.to(self.dtype)).sum(dim=1)

    def gradients_by_factors(
        self, projected: Float[Tensor, "T rn"], small: Float[Tensor, "T m"]
    ) -> tuple[Float[Tensor, "tn r"], Float[Tensor, "tn m"]]:
        """The gradients of λ and γ from large · B and the rows of the small side."""
        of_lambda = (self._by_basis(projected) * self._through_a(small)).sum(dim=0) * self.scaling
        of_gamma = self._spread(projected).mul_(small[:, None]).sum(dim=0)
        return of_lambda, of_gamma.to(self.gamma.dtype)

    def gradients(self, gradient: Float[Tensor, "rn m"]) -> tuple[Float[Tensor, "tn r"], Float[Tensor, "tn m"]]:
        """The gradients of λ and γ from that of C."""
        by_basis = gradient.unflatten(0, (-1, self.num_bases))
        A = (self.scaling * self.A.to(self.gamma.dtype)).unflatten(0, (by_basis.shape[0], -1))
        terms = self.gamma.shape[0] // self.num_bases
        of_lambda, of_gamma = [], torch.zeros_like(self.gamma)
        for piece in self._pieces():
            part = by_basis[piece]
            weighted = torch.mul(part, A[piece], out=scratch("product", self.gamma, part.shape)).transpose(0, 1)
            weighted = weighted.repeat(terms, 1, 1) if terms > 1 else weighted
            of_lambda.append(torch.bmm(weighted, self.gamma[:, :, None])[:, :, 0])
            of_gamma += torch.bmm(self.lambda_[:, None, piece], weighted)[:, 0]
        return torch.cat(of_lambda, dim=1), of_gamma

    def _pieces(self) -> Iterator[slice]:
        """Columns k of the bases, some at a time; all at once where operations only are recorded."""
        r = self.lambda_.shape[1]
        step = max(1, _PIECE // self.gamma.numel()) if eager_on_cpu(self.gamma) else r
        return (slice(first, first + step) for first in range(0, r, step))

    def _entries(self, piece: slice) -> Float[Tensor, "k n m"]:
        """C's entries for some columns of the bases, in the dtype of γ, in two elementwise products."""
        A = self.A.unflatten(0, (self.lambda_.shape[1], -1))[piece]
        terms = self.gamma.shape[0] // self.num_bases
        if terms > 1 and A.shape[1] > 1:
            A = A.repeat(1, terms, 1)
        memory = scratch("product", self.gamma, (A.shape[0], *self.gamma.shape))
        product = torch.mul(self.gamma, A, out=memory).mul_((self.scaling * self.lambda_[:, piece].T)[:, :, None])
        return product.unflatten(1, (terms, self.num_bases)).sum(dim=1) if terms > 1 else product

    def _through_a(self, small: Float[Tensor, "T m"]) -> Float[Tensor, "T tn r"]:
        """Σ_i A_ki γ_ji x_ti for every row t, basis j and column k, in the dtype of γ."""
        memory = scratch("product", self.gamma, (small.shape[0], *self.gamma.shape), self.dtype)
        weighted = torch.mul(small[:, None], self.gamma.to(self.dtype), out=memory)
        return (weighted @ self.A.T).to(self.gamma.dtype)

    def _spread(self, hidden: Float[Tensor, "T rn"]) -> Float[Tensor, "T tn m"]:
        """G Σ_k h_tjk λ_jk A_ki for every row t, basis j and entry i."""
        return (self._by_basis(hidden) * (self.scaling * self.lambda_)).to(self.dtype) @ self.A

    def _by_basis(self, hidden: Float[Tensor, "T rn"]) -> Float[Tensor, "T tn r"]:
        """Hidden rows as (T, tn, r), those of a basis again for each update."""
        terms = self.gamma.shape[0] // self.num_bases
        by_basis = hidden.unflatten(1, (-1, self.num_bases)).transpose(1, 2)
        return by_basis.repeat(1, terms, 1) if terms > 1 else by_basis
