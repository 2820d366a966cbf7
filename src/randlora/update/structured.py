"""Structured bases: A has one nonzero per column, B is a signed block of a Hadamard matrix. Nothing dense is stored.

C is block-diagonal after a permutation of the columns into slots (k·n + q: the q-th column that A sends to its row k),
so a product with C is r products with n × n blocks, and a product with B is two with small Hadamard factors.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class StructuredOperator:
    """The operator of structured bases; C is held as its blocks (r, n, n): row k, basis j, slot q."""

    slot: Int[Tensor, " m"]
    source: Int[Tensor, "r n"]
    sign: Float[Tensor, "r n"]
    row_sign: Float[Tensor, " M"]
    left: Float[Tensor, "a c"]
    right: Float[Tensor, "b b"]

    def pair(self) -> tuple[Float[Tensor, "r m"], Float[Tensor, "M rn"]]:
        """A and B written out (A without the factor √r that gives it unit variance)."""
        r, bases_count = self.source.shape
        A = self.sign.new_zeros(r, self.slot.shape[0])
        A[self.slot // bases_count, torch.arange(self.slot.shape[0], device=A.device)] = self.sign.flatten()[self.slot]
        B = self.row_sign[:, None] * torch.kron(self.left, self.right)[: self.row_sign.shape[0], : r * bases_count]
        return A, B

    def coefficients(
        self, lambda_: Float[Tensor, "n r"], gamma: Float[Tensor, "n m"], scaling: float, dtype: torch.dtype
    ) -> Float[Tensor, "r n n"]:
        """The blocks of C; the column of a padding slot is zero."""
        return ((scaling * lambda_.T)[:, :, None] * self._signed_slots(gamma)).to(dtype)

    def mix(self, coefficients: Float[Tensor, "r n n"], small: Float[Tensor, "T m"]) -> Float[Tensor, "T rn"]:
        """Small · Cᵀ, block by block."""
        hidden = torch.bmm(small[:, self.source].transpose(0, 1), coefficients.transpose(1, 2))
        return hidden.transpose(0, 1).reshape(small.shape[0], self.source.numel())

    def unmix(self, coefficients: Float[Tensor, "r n n"], hidden: Float[Tensor, "T rn"]) -> Float[Tensor, "T m"]:
        """Hidden · C, block by block."""
        slots = torch.bmm(self._by_row(hidden), coefficients)
        return slots.transpose(0, 1).reshape(hidden.shape[0], self.source.numel())[:, self.slot]

    def expand(self, hidden: Float[Tensor, "T rn"]) -> Float[Tensor, "T M"]:
        """Hidden · Bᵀ = row_sign ⊙ (left · H · rightᵀ), H the hidden row as a matrix (c, b)."""
        width = self.right.shape[0]
        padded = F.pad(hidden, (0, self.left.shape[1] * width - hidden.shape[1]))
        transformed = self.left @ (padded.unflatten(1, (-1, width)) @ self.right.T)
        return transformed.flatten(1)[:, : self.row_sign.shape[0]] * self.row_sign

    def project(self, large: Float[Tensor, "T M"]) -> Float[Tensor, "T rn"]:
        """Large · B, the transpose of `expand`."""
        width = self.right.shape[0]
        padded = F.pad(large * self.row_sign, (0, self.left.shape[0] * width - large.shape[1]))
        transformed = self.left.T @ (padded.unflatten(1, (-1, width)) @ self.right)
        return transformed.flatten(1)[:, : self.source.numel()]

    def fold(self, coefficients: Float[Tensor, "r n n"]) -> Float[Tensor, "M m"]:
        """B · C: the columns of C, spread out over their slots, through the transform."""
        r, bases_count, _ = coefficients.shape
        spread = coefficients.new_zeros(r, bases_count, r, bases_count)
        spread.diagonal(dim1=0, dim2=2).copy_(coefficients.permute(2, 1, 0))
        columns = spread.view(r * bases_count, r * bases_count)[self.slot]
        # Contiguous, because the sum with the weight would otherwise run several times slower.
        return self.expand(columns).T.contiguous()

    def gradients(
        self,
        large: Float[Tensor, "T M"],
        small: Float[Tensor, "T m"],
        lambda_: Float[Tensor, "n r"],
        gamma: Float[Tensor, "n m"],
        scaling: float,
    ) -> tuple[Float[Tensor, "n r"], Float[Tensor, "n m"]]:
        """DC only where C is not zero: r blocks of n × n, never G = largeᵀ · small."""
        hidden, slots = self._by_row(self.project(large)), small[:, self.source].transpose(0, 1)
        blocks = torch.bmm(hidden.transpose(1, 2), slots).to(gamma.dtype) * scaling
        lambda_gradient = (blocks * self._signed_slots(gamma)).sum(dim=2).T
        by_slot = (blocks * lambda_.T[:, :, None]).transpose(0, 1) * self.sign.to(gamma.dtype)
        return lambda_gradient, by_slot.flatten(1)[:, self.slot]

    def _by_row(self, hidden: Float[Tensor, "T rn"]) -> Float[Tensor, "r T n"]:
        return hidden.unflatten(1, tuple(self.source.shape)).transpose(0, 1)

    def _signed_slots(self, gamma: Float[Tensor, "n m"]) -> Float[Tensor, "r n n"]:
        """γ times the nonzero of A, (row k, basis j, slot q)."""
        return (gamma[:, self.source] * self.sign.to(gamma.dtype)).transpose(0, 1)
