"""Structured bases: A adds up r contiguous blocks of columns, B has M rows of L ⊗ R. Nothing dense is stored.

Write F = R·C for the n × m matrix of the blocks R·C_k side by side. Cut into blocks of n rows, ΔW holds L[a, k] · F_k
in block (a, k). So to fold it costs one pass over the weight, and a product with it is r products with the n × w blocks
F_k and one with L.

The blocks are w = ⌈m/r⌉ columns wide, where m is no multiple of r the last ones one less. The *slots* are the columns
with a zero at the end of each short block, r·w in all. There are n = w bases unless fewer are asked for.

L has p = max(r, ⌈M/n⌉) rows. Where M < r·n the last blocks of rows, too, are one row shorter, else the last block is
cut off: ΔW has full rank because of the former (README).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from randlora.update.columnwise import fold_columnwise
from randlora.update.kernels import available, structured_fold, structured_gradients
from randlora.update.operators import Rates, Sizes, Work
from randlora.update.partition import Partition
from randlora.update.rounding import rounded_product
from randlora.update.scratch import eager, eager_on_cpu, scratch

STRUCTURED_RATES = Rates(entry=69, product=2.3)  # fitted by benchmarks/costs.py
# T products with L, one for each row, are faster than a copy and one product only in 16 bits and with blocks this wide.
_WIDE_BLOCK = 32


class StructuredForm(NamedTuple):
    """The factors of B: M rows of left ⊗ R, R = (outer ⊗ inner)[:n, :n].

    Attributes:
        left: L, p = max(r, ⌈M/n⌉), entries ±1.
        outer: Entries ±1; a single 1 where R is one matrix.
        inner: Entries ±1, of an order that times that of `outer` is n or more.
    """

    left: Float[Tensor, "p r"]
    outer: Float[Tensor, "b b"]
    inner: Float[Tensor, "c c"]

    @property
    def rates(self) -> Rates:
        """The prices of its operations."""
        return STRUCTURED_RATES

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype."""
        return self.left.dtype

    def operator(self, sizes: Sizes) -> "StructuredOperator":
        """The arithmetic of these bases."""
        return StructuredOperator(sizes.small, sizes.large, sizes.num_bases, *self)

    def work(self, sizes: Sizes, tokens: int) -> Work:
        """What a pass over T rows does; a fold does no more than its pass over the weight."""
        to_small, to_large = tokens * sizes.small * sizes.num_bases, tokens * sizes.large * sizes.r
        return Work(fold=0, to_small=to_small, to_large=to_large, gradients=to_small + to_large)


@dataclass(frozen=True)
class StructuredOperator:
    """The operator of structured bases. Coefficients are F by slots (n, r, w); hidden rows go block by block."""

    small: int
    large: int
    num_bases: int
    left: Float[Tensor, "p r"]
    outer: Float[Tensor, "b b"]
    inner: Float[Tensor, "c c"]

    keeps_coefficients: ClassVar[bool] = True

    def pair(self) -> tuple[Float[Tensor, "r m"], Float[Tensor, "M rn"]]:
        """A and B written out (A without the factor √r that gives it unit variance)."""
        r, n = self.left.shape[1], self.num_bases
        columns = self._columns
        blocks = torch.eye(r, dtype=self.left.dtype, device=self.left.device)[:, :, None].expand(r, r, columns.width)
        product = torch.kron(self.left, torch.kron(self.outer, self.inner)[:n, :n])
        return columns.join(blocks), self._rows.join(product.T.unflatten(1, (-1, n))).T

    def coefficients(
        self, lambda_: Float[Tensor, "t r"], gamma: Float[Tensor, "t m"], scaling: float, dtype: torch.dtype
    ) -> Float[Tensor, "n r w"]:
        """F = R·C; C/g is rounded once, and so is F."""
        product = rounded_product(lambda_[:, :, None], self._columns.split(gamma), dtype, self.num_bases)
        return _kronecker(self.outer, self.inner, product.flatten(1), scaling).view_as(product)

    def mix(self, coefficients: Float[Tensor, "n r w"], small: Float[Tensor, "T m"]) -> Float[Tensor, "r T n"]:
        """Small · Fᵀ, block by block."""
        by_block = coefficients.transpose(0, 1)
        if eager_on_cpu(small):  # other devices multiply blocks with strides between their rows as fast
            by_block = by_block.contiguous()
        return torch.bmm(self._columns.split(small).transpose(0, 1), by_block.transpose(1, 2))

    def unmix(
        self, coefficients: Float[Tensor, "n r w"], hidden: Float[Tensor, "r T n"], onto: Tensor | None = None
    ) -> Float[Tensor, "T m"]:
        """Hidden · F, block by block."""
        by_block = coefficients.transpose(0, 1)
        if onto is None:
            return self._columns.join(_bmm_by_row(hidden, by_block))
        # The compiler cannot write through a transposed view.
        if not self._columns.missing and not torch.compiler.is_compiling():
            self._columns.split(onto).transpose(0, 1).baddbmm_(hidden, by_block)
            return onto
        return onto.add_(self.unmix(coefficients, hidden))

    def expand(self, hidden: Float[Tensor, "r T n"], onto: Tensor | None = None) -> Float[Tensor, "T M"]:
        """Hidden · Lᵀ: from blocks of the small side to blocks of the large one."""
        factors = self.left.expand(hidden.shape[1], -1, -1), hidden.transpose(0, 1)
        if onto is None:
            return self._rows.join(torch.bmm(*factors))
        if not self._rows.missing:
            self._rows.split(onto).baddbmm_(*factors)
            return onto
        return onto.add_(self.expand(hidden))

    def project(self, large: Float[Tensor, "T M"]) -> Float[Tensor, "r T n"]:
        """Large · L, the transpose of `expand`; block by block in memory, for the products that follow."""
        blocks = self._rows.split(large)
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
        """Weight + ΔW in one pass, in the weight's layout and dtype or C's; every sum is rounded once."""
        columns, rows = self._columns, self._rows
        if out is None and available(weight) and columns.width == self.num_bases and not (rows.spread and rows.missing):
            return structured_fold(weight, columns.join(coefficients), self.left)
        if out is None and eager(weight) and weight.dtype != coefficients.dtype:
            out = torch.empty_like(weight, dtype=coefficients.dtype)  # rounded as it is written
        update = columns.join(coefficients)
        columnwise = weight.stride(0) < weight.stride(1)
        if columnwise and eager_on_cpu(weight):
            out = torch.empty_like(weight) if out is None else out
            fold_columnwise(weight.T, update.T.contiguous(), self.left, columns, rows, out.T)
            return out
        signs = columns.join(self.left[:, :, None].expand(-1, -1, columns.width))
        if columnwise:  # so that the pass reads them in the order of the weight
            update, signs = update.T.contiguous().T, signs.T.contiguous().T
        folded = []
        for part, which, height in rows.groups:
            shape = which.stop - which.start, height
            into = None if out is None else out[part].unflatten(0, shape)
            blocks = weight[part].unflatten(0, shape)
            folded.append(torch.addcmul(blocks, signs[which, None], update[:height], out=into).flatten(0, 1))
        if out is not None:
            return out
        return torch.cat(folded) if len(folded) > 1 else folded[0]

    def rows(self, coefficients: Float[Tensor, "n r w"], index: Int[Tensor, " T"]) -> Float[Tensor, "T m"]:
        """Row b of block a of ΔW is row b of every F_k, times L[a, k]."""
        n = self.num_bases
        if self._rows.spread and self._rows.missing:
            numbers = torch.arange(self.left.shape[0] * n, device=index.device)
            index = self._rows.join(numbers.view(-1, n))[index]
        return self._columns.join(coefficients[index % n] * self.left[index // n][:, :, None])

    def gradients(
        self,
        large: Float[Tensor, "T M"],
        small: Float[Tensor, "T m"],
        lambda_: Float[Tensor, "t r"],
        gamma: Float[Tensor, "t m"],
        scaling: float,
        projected: Float[Tensor, "r T n"] | None = None,
    ) -> tuple[Float[Tensor, "t r"], Float[Tensor, "t m"]]:
        """DF = the n × n blocks of projectedᵀ · small, g·dC = g·Rᵀ · dF; never G = largeᵀ · small."""
        hidden = self.project(large) if projected is None else projected
        blocks = _bmm_by_row(hidden.transpose(1, 2), self._columns.split(small).transpose(0, 1))
        gradient = _kronecker(self.outer.T, self.inner.T, blocks.flatten(1), scaling).view_as(blocks)
        if len(gamma) > self.num_bases:
            gradient = gradient.repeat(len(gamma) // self.num_bases, 1, 1)
        elif available(gradient) and self._columns.width == self.num_bases:
            return structured_gradients(gradient, lambda_, gamma, 1.0)
        return (gradient * self._columns.split(gamma)).sum(dim=2), self._columns.join(gradient * lambda_[:, :, None])

    @property
    def _columns(self) -> Partition:
        r = self.left.shape[1]
        return Partition(self.small, r, -(-self.small // r), spread=True)

    @property
    def _rows(self) -> Partition:
        blocks, r = self.left.shape
        return Partition(self.large, blocks, self.num_bases, spread=blocks == r)


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


def _kronecker(outer: Tensor, inner: Tensor, matrix: Float[Tensor, "n w"], scale: float) -> Float[Tensor, "n w"]:
    """Scale · (outer ⊗ inner)[:n, :n] · matrix, as two products with the small factors; scaled before it is rounded."""
    if outer.shape[0] == 1:
        return _scaled_product(inner, matrix, scale)
    padded = F.pad(matrix, (0, 0, 0, outer.shape[0] * inner.shape[0] - matrix.shape[0]))
    blocks = padded.unflatten(0, (outer.shape[0], -1))
    rotated = _scaled_product(outer, blocks.flatten(1), scale).view_as(blocks)
    return torch.matmul(inner, rotated).flatten(0, 1)[: matrix.shape[0]]


def _scaled_product(left: Float[Tensor, "p q"], right: Float[Tensor, "q s"], scale: float) -> Float[Tensor, "p s"]:
    """Scale · left · right in one operation."""
    # With beta 0 an operation that runs at once does not read the first; transforms and compilers may multiply it by 0.
    first = right.new_empty(1, 1) if eager(right) else right.new_zeros(1, 1)
    return torch.addmm(first, left, right, beta=0, alpha=scale)
