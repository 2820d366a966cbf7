"""What the strategies need to know of a family: products with B and with C, and the gradients of λ and γ.

Write ΔW = B·C with C = [g · λ_jk · A_ki · γ_ji] (r·n × m), for a layer whose small side has length m and whose large
side has length M. An operator multiplies a batch of T rows (T × side) without forming ΔW. Between the two products the
rows are *hidden*, in the family's own layout (the r·n columns of B in one way or another); `coefficients` holds C, in
the family's own form too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from randlora.update.dense import DenseOperator
from randlora.update.sparse import SparseMatrix, SparseRows
from randlora.update.structured import StructuredOperator


@dataclass(frozen=True)
class UpdateSpec:
    """What is fixed about an adapter on one layer.

    Attributes:
        kind: `dense`: the bases are A (r × m) and B (M × r·n), and where most of B is zero B and Bᵀ by rows (the three
            tensors of `SparseRows` each). `structured`: see `StructuredOperator`.
        r: Basis rank.
        num_bases: n; the rank of ΔW is min(m, r·n), m where n = ⌈m/r⌉. λ and γ have n rows,
            or n for each of several updates that are summed.
        small: m, the length of the side with the trained diagonals.
        large: M ≥ m, the length of the other side.
        small_is_input: True where in ≤ out.
        scaling: g of eq. 4.
        density: The share of B's entries that are not zero, where the bases have B by rows; else 1. For the cost model.
    """

    kind: str
    r: int
    num_bases: int
    small: int
    large: int
    small_is_input: bool
    scaling: float
    density: float = 1.0


@runtime_checkable  # the tests check annotations at run time
class Operator(Protocol):
    """The arithmetic of one family for one layer shape.

    Attributes:
        keeps_coefficients: Whether C is no larger than γ, so that it may wait for the backward pass.
    """

    keeps_coefficients: ClassVar[bool]

    def pair(self) -> tuple[Tensor, Tensor]:
        """A (r, m) and B (M, r·n) written out, for the reference."""

    def coefficients(self, lambda_: Tensor, gamma: Tensor, scaling: float, dtype: torch.dtype) -> Tensor:
        """C, computed in the dtype of λ (n, r) and γ (n, m) and rounded once to `dtype`."""

    def mix(self, coefficients: Tensor, small: Tensor) -> Tensor:
        """Small · Cᵀ: (T, m) -> hidden."""

    def unmix(self, coefficients: Tensor, hidden: Tensor, onto: Tensor | None = None) -> Tensor:
        """Hidden · C: hidden -> (T, m); added to `onto`, in place, where that is given."""

    def expand(self, hidden: Tensor, onto: Tensor | None = None) -> Tensor:
        """Hidden · Bᵀ: hidden -> (T, M); added to `onto`, in place, where that is given."""

    def project(self, large: Tensor) -> Tensor:
        """Large · B: (T, M) -> hidden."""

    def fold(self, coefficients: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        """Weight + B · C for a weight (M, m), in its dtype; every sum is rounded once. Written to `out` if given."""

    def rows(self, coefficients: Tensor, index: Tensor) -> Tensor:
        """Rows of B · C by their numbers (T,): (T, m). In differentiable operations."""

    def gradients(
        self,
        large: Tensor,
        small: Tensor,
        lambda_: Tensor,
        gamma: Tensor,
        scaling: float,
        projected: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The gradients of λ and γ from the rows (T, M) and (T, m) of the activations and of the output gradients.

        With G = largeᵀ · small the gradient of ΔW, dC = Bᵀ G, dλ_jk = g Σ_i dC_jki A_ki γ_ji and
        dγ_ji = g Σ_k dC_jki A_ki λ_jk. `projected` is `project(large)` where the caller has it already.
        """


def make_operator(spec: UpdateSpec, bases: Sequence[Tensor]) -> Operator:
    """The operator of a layer's adapter.

    Args:
        spec: The adapter on this layer.
        bases: The tensors that describe its bases, all on one device and in one floating dtype.
    """
    if spec.kind == "structured":
        return StructuredOperator(spec.small, spec.large, spec.num_bases, *bases)
    A, B, *by_rows = bases
    sparse = SparseMatrix(SparseRows(*by_rows[:3]), SparseRows(*by_rows[3:])) if by_rows else None
    return DenseOperator(A, B, sparse)


def delta_weight(
    spec: UpdateSpec,
    bases: Sequence[Tensor],
    lambda_: Float[Tensor, "t r"],
    gamma: Float[Tensor, "t m"],
) -> Float[Tensor, "out in"]:
    """ΔW in the layout of a linear layer's weight and in the dtype of λ, by the operator's own fold."""
    shape = (spec.large, spec.small) if spec.small_is_input else (spec.small, spec.large)
    return folded_weight(gamma.new_zeros(shape), spec, bases, lambda_, gamma, gamma.dtype)


def delta_rows(
    index: Int[Tensor, "*batch"],
    spec: UpdateSpec,
    bases: Sequence[Tensor],
    lambda_: Float[Tensor, "t r"],
    gamma: Float[Tensor, "t m"],
) -> Float[Tensor, "*batch m"]:
    """Rows of ΔW where the small side is the input, in the dtype of the bases, without forming the others.

    Args:
        index: Numbers of rows, from 0 to M - 1.
        spec: The adapter on this layer.
        bases: The tensors that describe its bases.
        lambda_: Trained diagonals Λ.
        gamma: Trained diagonals Γ.
    """
    operator = make_operator(spec, bases)
    coefficients = operator.coefficients(lambda_, gamma, spec.scaling, bases[0].dtype)
    return operator.rows(coefficients, index.flatten()).view(*index.shape, spec.small)


def folded_weight(
    weight: Float[Tensor, "out in"],
    spec: UpdateSpec,
    bases: Sequence[Tensor],
    lambda_: Float[Tensor, "t r"],
    gamma: Float[Tensor, "t m"],
    dtype: torch.dtype,
) -> Float[Tensor, "out in"]:
    """W₀ + ΔW, rounded once to `dtype`; a weight of a wider dtype keeps its low bits until then.

    Args:
        weight: W₀, any floating dtype and any strides.
        spec: The adapter on this layer.
        bases: The tensors that describe its bases, in `dtype`.
        lambda_: Trained diagonals Λ.
        gamma: Trained diagonals Γ.
        dtype: The compute dtype.
    """
    operator = make_operator(spec, bases)
    coefficients = operator.coefficients(lambda_, gamma, spec.scaling, dtype)
    folded = operator.fold(coefficients, weight if spec.small_is_input else weight.T).to(dtype)
    return folded if spec.small_is_input else folded.T
