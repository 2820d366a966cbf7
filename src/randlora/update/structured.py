"""Structured bases: A adds up r contiguous blocks of columns, B = (L ⊗ R)[:M]. Nothing dense is stored.

Write F = R·C for the n × m matrix of the blocks R·C_k side by side. Cut into blocks of n rows, ΔW holds L[a, k] · F_k
in block (a, k). So to fold it costs one pass over the weight, and a product with it is r products with the n × w blocks
F_k and one with L.

The blocks are w = ⌈m/r⌉ columns wide, where m is no multiple of r some of them one less. The *slots* are the columns
with a zero at the end of each short block, r·w in all. There are n = w bases unless fewer are asked for.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from randlora.update.kernels import available, structured_fold, structured_gradients
from randlora.update.scratch import scratch

# T products with L, one for each row, are faster than a copy and one product only in 16 bits and with blocks this wide.
_WIDE_BLOCK = 32


@dataclass(frozen=True)
class StructuredOperator:
    """The operator of structured bases. Coefficients are F by slots (n, r, w); hidden rows go block by block."""

    small: int
    large: int
    num_bases: int
    left: Float[Tensor, "a r"]
    outer: Float[Tensor, "b b"]
    inner: Float[Tensor, "c c"]

    keeps_coefficients: ClassVar[bool] = True

    def pair(self) -> tuple[Float[Tensor, "r m"], Float[Tensor, "M rn"]]:
        """A and B written out (A without the factor √r that gives it unit variance)."""
        r, n = self.left.shape[1], self.num_bases
        blocks = torch.eye(r, dtype=self.left.dtype, device=self.left.device)[:, :, None].expand(r, r, self._width())
        return self._columns(blocks), torch.kron(self.left, torch.kron(self.outer, self.inner)[:n, :n])[: self.large]

    def coefficients(
        self, lambda_: Float[Tensor, "t r"], gamma: Float[Tensor, "t m"], scaling: float, dtype: torch.dtype
    ) -> Float[Tensor, "n r w"]:
        """F = R·C; C is rounded once, and so is F."""
        scaled = (scaling * lambda_)[:, :, None] * self._slots(gamma)
        if len(scaled) > self.num_bases:
            scaled = scaled.unflatten(0, (-1, self.num_bases)).sum(dim=0)
        return _kronecker(self.outer, self.inner, scaled.to(dtype).flatten(1)).view_as(scaled)

    def mix(self, coefficients: Float[Tensor, "n r w"], small: Float[Tensor, "T m"]) -> Float[Tensor, "r T n"]:
        """Small · Fᵀ, block by block."""
        by_block = coefficients.transpose(0, 1).contiguous()
        return torch.bmm(self._slots(small).transpose(0, 1), by_block.transpose(1, 2))

    def unmix(
        self, coefficients: Float[Tensor, "n r w"], hidden: Float[Tensor, "r T n"], onto: Tensor | None = None
    ) -> Float[Tensor, "T m"]:
        """Hidden · F, block by block."""
        by_block = coefficients.transpose(0, 1)
        if onto is None:
            return self._columns(_bmm_by_row(hidden, by_block))
        # The compiler cannot write through a transposed view.
        if self._whole_blocks() == self.left.shape[1] and not torch.compiler.is_compiling():
            self._slots(onto).transpose(0, 1).baddbmm_(hidden, by_block)
            return onto
        return onto.add_(self.unmix(coefficients, hidden))

    def expand(self, hidden: Float[Tensor, "r T n"], onto: Tensor | None = None) -> Float[Tensor, "T M"]:
        """Hidden · Lᵀ: from blocks of the small side to blocks of the large one."""
        factors = self.left.expand(hidden.shape[1], -1, -1), hidden.transpose(0, 1)
        if onto is None:
            return torch.bmm(*factors).flatten(1)[:, : self.large]
        if self.left.shape[0] * self.num_bases == self.large:
            onto.unflatten(1, (-1, self.num_bases)).baddbmm_(*factors)
            return onto
        return onto.add_(self.expand(hidden))

    def project(self, large: Float[Tensor, "T M"]) -> Float[Tensor, "r T n"]:
        """Large · L, the transpose of `expand`; block by block in memory, for the products that follow."""
        blocks = _pad(large, self.left.shape[0] * self.num_bases).unflatten(1, (-1, self.num_bases))
        if self.num_bases >= _WIDE_BLOCK and large.dtype.itemsize == 2:
            return _bmm_by_row(self.left.T.expand(large.shape[0], -1, -1), blocks)
        by_block = blocks.transpose(0, 1)
        memory = scratch("blocks", large, by_block.shape)
        by_block = by_block.contiguous() if memory is None else memory.copy_(by_block)
        return (self.left.T @ by_block.flatten(1)).unflatten(1, by_block.shape[1:])

    def fold(
        self,
        coefficients: Float[Tensor, "n r w"],
        weight: Float[Tensor, "M m"],
        out: Float[Tensor, "M m"] | None = None,
    ) -> Float[Tensor, "M m"]:
        """Weight + ΔW in one pass, in the weight's dtype and layout; every sum is rounded once."""
        if out is None and available(weight) and self._width() == self.num_bases:
            return structured_fold(weight, self._columns(coefficients), self.left)
        n = self.num_bases
        update = self._columns(coefficients).to(weight.dtype)
        signs = self._columns(self.left[:, :, None].expand(-1, -1, self._width())).to(weight.dtype)
        if weight.stride(0) < weight.stride(1):  # so that the pass reads them in the order of the weight
            update, signs = update.T.contiguous().T, signs.T.contiguous().T
        whole, rest = divmod(self.large, n)
        blocks = weight[: whole * n].unflatten(0, (whole, n))
        if out is not None:
            torch.addcmul(blocks, signs[:whole, None], update, out=out[: whole * n].unflatten(0, (whole, n)))
            if rest:
                torch.addcmul(weight[whole * n :], signs[whole], update[:rest], out=out[whole * n :])
            return out
        folded = torch.addcmul(blocks, signs[:whole, None], update).flatten(0, 1)
        if rest:
            folded = torch.cat([folded, torch.addcmul(weight[whole * n :], signs[whole], update[:rest])])
        return folded

    def rows(self, coefficients: Float[Tensor, "n r w"], index: Int[Tensor, " T"]) -> Float[Tensor, "T m"]:
        """Row a·n + b of ΔW is row b of every F_k, times L[a, k]."""
        n = self.num_bases
        return self._columns(coefficients[index % n] * self.left[index // n][:, :, None])

    def gradients(
        self,
        large: Float[Tensor, "T M"],
        small: Float[Tensor, "T m"],
        lambda_: Float[Tensor, "t r"],
        gamma: Float[Tensor, "t m"],
        scaling: float,
        projected: Float[Tensor, "r T n"] | None = None,
    ) -> tuple[Float[Tensor, "t r"], Float[Tensor, "t m"]]:
        """DF = the n × n blocks of projectedᵀ · small, dC = Rᵀ · dF; never G = largeᵀ · small."""
        hidden = self.project(large) if projected is None else projected
        blocks = _bmm_by_row(hidden.transpose(1, 2), self._slots(small).transpose(0, 1))
        gradient = _kronecker(self.outer.T, self.inner.T, blocks.flatten(1)).view_as(blocks)
        if len(gamma) > self.num_bases:
            gradient = gradient.repeat(len(gamma) // self.num_bases, 1, 1)
        elif available(gradient) and self._width() == self.num_bases:
            return structured_gradients(gradient, lambda_, gamma, scaling)
        scaled = (scaling * lambda_)[:, :, None]
        return (gradient * self._slots(gamma)).sum(dim=2) * scaling, self._columns(gradient * scaled)

    def _width(self) -> int:
        return -(-self.small // self.left.shape[1])

    def _whole_blocks(self) -> int:
        return self.small - self.left.shape[1] * (self._width() - 1)

    def _slots(self, columns: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch r w"]:
        r, width, whole = self.left.shape[1], self._width(), self._whole_blocks()
        if whole == r:
            return columns.unflatten(-1, (r, width))
        full = columns[..., : whole * width].unflatten(-1, (whole, width))
        short = columns[..., whole * width :].unflatten(-1, (r - whole, width - 1))
        return torch.cat([full, _pad(short, width)], dim=-2)

    def _columns(self, slots: Float[Tensor, "*batch r w"]) -> Float[Tensor, "*batch m"]:
        r, width, whole = self.left.shape[1], self._width(), self._whole_blocks()
        if whole == r:
            return slots.flatten(-2)
        return torch.cat([slots[..., :whole, :].flatten(-2), slots[..., whole:, : width - 1].flatten(-2)], dim=-1)


def _pad(rows: Tensor, length: int) -> Tensor:
    """Zeros at the end of the last dimension, up to this length."""
    return F.pad(rows, (0, length - rows.shape[-1])) if rows.shape[-1] < length else rows


def _bmm_by_row(left: Float[Tensor, "b p q"], right: Float[Tensor, "b q s"]) -> Float[Tensor, "p b s"]:
    """Left · right with rows first: where what is multiplied lies block by block, the result need not be copied.

    The left factor should be contiguous, or its transpose: a product with strides between its rows takes several times
    as long.
    """
    if torch.compiler.is_compiling():  # the compiler chooses the layout itself
        return torch.bmm(left, right).transpose(0, 1)
    rows = left.new_empty(left.shape[1], left.shape[0], right.shape[2])
    torch.bmm(left, right, out=rows.transpose(0, 1))
    return rows


def _kronecker(outer: Tensor, inner: Tensor, matrix: Float[Tensor, "n w"]) -> Float[Tensor, "n w"]:
    """(outer ⊗ inner)[:n, :n] · matrix, as two products with the small factors."""
    if outer.shape[0] == 1:
        return inner @ matrix
    blocks = _pad(matrix.T, outer.shape[0] * inner.shape[0]).T.unflatten(0, (outer.shape[0], -1))
    rotated = (outer @ blocks.flatten(1)).view_as(blocks)
    return torch.matmul(inner, rotated).flatten(0, 1)[: matrix.shape[0]]
