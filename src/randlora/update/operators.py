"""What the strategies need to know of a family: products with B and with C, and the gradients of λ and γ.

Write ΔW = B·C with C = [g · λ_jk · A_ki · γ_ji] (r·n × m), for a layer whose small side has length m and whose large
side has length M. "Hidden" names the r·n columns of B. An operator multiplies a batch of T rows (T × side) without
forming ΔW; `coefficients` is C in the family's own storage.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from randlora.update.dense import DenseOperator
from randlora.update.structured import StructuredOperator


@runtime_checkable  # the tests check annotations at run time
class Operator(Protocol):
    """The arithmetic of one family for one layer shape."""

    def pair(self) -> tuple[Tensor, Tensor]:
        """A (r, m) and B (M, r·n) written out, for the reference."""

    def coefficients(self, lambda_: Tensor, gamma: Tensor, scaling: float, dtype: torch.dtype) -> Tensor:
        """C, computed in the dtype of λ (n, r) and γ (n, m) and rounded once to `dtype`."""

    def mix(self, coefficients: Tensor, small: Tensor) -> Tensor:
        """Small · Cᵀ: (T, m) -> (T, r·n)."""

    def unmix(self, coefficients: Tensor, hidden: Tensor) -> Tensor:
        """Hidden · C: (T, r·n) -> (T, m)."""

    def expand(self, hidden: Tensor) -> Tensor:
        """Hidden · Bᵀ: (T, r·n) -> (T, M)."""

    def project(self, large: Tensor) -> Tensor:
        """Large · B: (T, M) -> (T, r·n)."""

    def fold(self, coefficients: Tensor) -> Tensor:
        """B · C, (M, m)."""

    def gradients(
        self, large: Tensor, small: Tensor, lambda_: Tensor, gamma: Tensor, scaling: float
    ) -> tuple[Tensor, Tensor]:
        """The gradients of λ and γ from the rows (T, M) and (T, m) of the activations and of the output gradients.

        With G = largeᵀ · small the gradient of ΔW, dC = Bᵀ G, dλ_jk = g Σ_i dC_jki A_ki γ_ji and
        dγ_ji = g Σ_k dC_jki A_ki λ_jk.
        """


_OPERATORS = {"dense": DenseOperator, "structured": StructuredOperator}


def make_operator(kind: str, tensors: Sequence[Tensor]) -> Operator:
    """The operator of this kind (`dense` or `structured`) over the tensors that describe its bases.

    Args:
        kind: `dense`: tensors are A (r × m) and B (M × r·n). `structured`: see `StructuredOperator`.
        tensors: All on one device and in one floating dtype (index vectors aside).
    """
    return _OPERATORS[kind](*tensors)


def delta_weight(
    operator: Operator,
    lambda_: Float[Tensor, "n r"],
    gamma: Float[Tensor, "n m"],
    scaling: float,
    dtype: torch.dtype,
    *,
    small_is_input: bool,
) -> Float[Tensor, "out in"]:
    """ΔW in the layout of a linear layer's weight, by the operator's own fold."""
    folded = operator.fold(operator.coefficients(lambda_, gamma, scaling, dtype))
    return folded if small_is_input else folded.T
