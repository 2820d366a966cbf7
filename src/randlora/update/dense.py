"""Dense bases: products with A and B as they are stored."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from randlora.update.coefficients import DenseCoefficients
from randlora.update.operators import Rates, Sizes, Work
from randlora.update.scratch import eager_on_cpu, scratch
from randlora.update.sparse import ENTRY_PRICE, SparseMatrix, SparseRows

# Fitted by benchmarks/costs.py.
DENSE_RATES = Rates(entry=4.8, product=1.1)
SPARSE_RATES = Rates(entry=69, product=1.1)
# With fewer rows in the batch a sparse product is no faster: each entry of B finds too little to add.
_FEWEST_ROWS = 16


def gradient_counts(tokens: int, small: int, large: int, hidden: int, density: float = 1.0) -> tuple[float, float]:
    """Multiply-adds of dC = Bᵀ·lᵀ·s by its two orders: Bᵀ·(lᵀ·s), by way of the weight's gradient G, and (l·B)ᵀ·s.

    With T rows, sides m and M, and h = r·n hidden columns

        G = lᵀ·s, Bᵀ·G:         T·M·m + M·m·h
        P = l·B,  Pᵀ·s:         T·M·h + T·m·h

    of which Bᵀ·G and l·B cost less where B is sparse (`product_price`). For h = m and dense B both have T·M·m, and what
    remains is M·m² against T·m²: the first is cheaper from more rows on than the *large* side has. For fewer bases that
    is from T·(h·(M + m) - M·m) > M·m·h on, later or never.

    Args:
        tokens: T.
        small: m.
        large: M.
        hidden: h.
        density: The share of the entries of B that products with it take.
    """
    price = product_price(density)
    return large * small * (tokens + price * hidden), tokens * hidden * (price * large + small)


def product_price(density: float) -> float:
    """The time of a product with B over that of the dense product of the same shape.

    Args:
        density: The share of the entries of B that the product takes; 1 where it is dense.
    """
    return 1.0 if density == 1 else ENTRY_PRICE * density


class DenseForm(NamedTuple):
    """Bases as they are stored.

    Attributes:
        A: r rows, shared by all bases (eq. 4), or r·n (eq. 3).
        B: Its column k·n + j is column k of B_j.
    """

    A: Float[Tensor, "rows m"]
    B: Float[Tensor, "M rn"]

    @property
    def rates(self) -> Rates:
        """The prices of its operations."""
        return DENSE_RATES

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype."""
        return self.A.dtype

    def operator(self, sizes: Sizes) -> "DenseOperator":  # noqa: ARG002 - one signature for all forms
        """The arithmetic of these bases."""
        return DenseOperator(self.A, self.B)

    def work(self, sizes: Sizes, tokens: int) -> Work:
        """What a pass over T rows does."""
        return _work(sizes, tokens, density=1)


class SparseForm(NamedTuple):
    """Bases with B mostly zeros: also B and its transpose by rows (see `SparseRows`)."""

    A: Float[Tensor, "rows m"]
    B: Float[Tensor, "M rn"]
    values: Float[Tensor, " entries"]
    columns: Int[Tensor, " entries"]
    starts: Int[Tensor, " rows_and_end"]
    transposed_values: Float[Tensor, " entries"]
    transposed_columns: Int[Tensor, " entries"]
    transposed_starts: Int[Tensor, " columns_and_end"]

    @property
    def rates(self) -> Rates:
        """A product leaves the addition to W₀ to a pass of its own, like that of the structured bases."""
        return SPARSE_RATES

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype."""
        return self.A.dtype

    def operator(self, sizes: Sizes) -> "DenseOperator":  # noqa: ARG002
        """The arithmetic of these bases."""
        rows = SparseRows(self.values, self.columns, self.starts)
        transposed = SparseRows(self.transposed_values, self.transposed_columns, self.transposed_starts)
        return DenseOperator(self.A, self.B, SparseMatrix(rows, transposed))

    def work(self, sizes: Sizes, tokens: int) -> Work:
        """What a pass over T rows does."""
        return _work(sizes, tokens, density=len(self.values) / self.B.numel())


def _work(sizes: Sizes, tokens: int, density: float) -> Work:
    small, large, hidden = sizes.small, sizes.large, sizes.r * sizes.num_bases
    return Work(
        fold=product_price(density) * large * small * hidden,
        to_small=tokens * hidden * small,
        to_large=tokens * hidden * large,
        gradients=min(gradient_counts(tokens, small, large, hidden, density)),
    )


@dataclass(frozen=True)
class DenseOperator:
    """The operator of stored bases; its C is a `DenseCoefficients`.

    Where most of B is zero it may be there as a sparse matrix too, for the large products.
    """

    A: Float[Tensor, "rows m"]
    B: Float[Tensor, "M rn"]
    sparse: SparseMatrix | None = None

    keeps_coefficients: ClassVar[bool] = False

    def pair(self) -> tuple[Tensor, Tensor]:
        """A and B."""
        return self.A, self.B

    def coefficients(
        self, lambda_: Float[Tensor, "t r"], gamma: Float[Tensor, "t m"], scaling: float, dtype: torch.dtype
    ) -> DenseCoefficients:
        """C by its factors."""
        return DenseCoefficients(lambda_, gamma, self.A, self.B.shape[1] // lambda_.shape[1], scaling, dtype)

    def mix(self, coefficients: DenseCoefficients, small: Float[Tensor, "T m"]) -> Float[Tensor, "T rn"]:
        """Small · Cᵀ."""
        return coefficients.mix(small) if coefficients.serves(small) else small @ coefficients.matrix().T

    def unmix(
        self, coefficients: DenseCoefficients, hidden: Float[Tensor, "T rn"], onto: Tensor | None = None
    ) -> Float[Tensor, "T m"]:
        """Hidden · C."""
        if coefficients.serves(hidden):
            product = coefficients.unmix(hidden)
            return product if onto is None else onto.add_(product)
        C = coefficients.matrix()
        return hidden @ C if onto is None else onto.addmm_(hidden, C)

    def expand(self, hidden: Float[Tensor, "T rn"], onto: Tensor | None = None) -> Float[Tensor, "T M"]:
        """Hidden · Bᵀ."""
        return hidden @ self.B.T if onto is None else onto.addmm_(hidden, self.B.T)

    def project(self, large: Float[Tensor, "T M"]) -> Float[Tensor, "T rn"]:
        """Large · B."""
        sparse = self._sparse_for(large)
        if sparse is None or large.shape[0] < _FEWEST_ROWS:
            return large @ self.B
        return sparse.transposed.times(large.T).T

    def fold(
        self,
        coefficients: DenseCoefficients,
        weight: Float[Tensor, "M m"],
        out: Float[Tensor, "M m"] | None = None,
    ) -> Float[Tensor, "M m"]:
        """Weight + B · C, in one product where the dtypes are the same and the product is dense."""
        C = coefficients.matrix()
        columnwise = weight.stride(0) < weight.stride(1)
        sparse = self._sparse_for(C)
        if sparse is not None:
            update = sparse.by_rows.times(C)
            # Copied in the order of the weight: a sum across orders takes longer.
            return torch.add(weight, update.T.contiguous().T if columnwise else update, out=out)
        if weight.dtype != C.dtype:
            return torch.add(weight, self.B @ C, out=out)
        if columnwise:
            return torch.addmm(weight.T, C.T, self.B.T, out=None if out is None else out.T).T
        return torch.addmm(weight, self.B, C, out=out)

    def rows(self, coefficients: DenseCoefficients, index: Int[Tensor, " T"]) -> Float[Tensor, "T m"]:
        """Rows of B, times C."""
        return self.B[index] @ coefficients.matrix()

    def gradients(
        self,
        large: Float[Tensor, "T M"],
        small: Float[Tensor, "T m"],
        lambda_: Float[Tensor, "t r"],
        gamma: Float[Tensor, "t m"],
        scaling: float,
        projected: Float[Tensor, "T rn"] | None = None,
    ) -> tuple[Float[Tensor, "t r"], Float[Tensor, "t m"]]:
        """By way of dC, Bᵀ · G or (large · B)ᵀ · small as `gradient_counts` finds cheaper; of a few rows without it."""
        coefficients = self.coefficients(lambda_, gamma, scaling, small.dtype)
        if coefficients.serves(small):
            return coefficients.gradients_by_factors(self.project(large) if projected is None else projected, small)
        hidden = self.B.shape[1]
        memory = scratch("gradient", small, (hidden, small.shape[1]))
        sparse = self._sparse_for(large)
        density = 1.0 if sparse is None else sparse.density()
        by_weight, by_rows = gradient_counts(small.shape[0], small.shape[1], large.shape[1], hidden, density)
        if projected is None and by_weight < by_rows:
            product = torch.mm(large.T, small, out=scratch("G", small, (large.shape[1], small.shape[1])))
            gradient = torch.mm(self.B.T, product, out=memory) if sparse is None else sparse.transposed.times(product)
        else:
            gradient = torch.mm((self.project(large) if projected is None else projected).T, small, out=memory)
        return coefficients.gradients(gradient)

    def _sparse_for(self, operand: Tensor) -> SparseMatrix | None:
        """B for a sparse product with this operand; None where the product is to be dense."""
        return self.sparse if eager_on_cpu(operand) else None
