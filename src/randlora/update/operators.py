"""What the strategies need to know of a family: products with B and with C, and the gradients of λ and γ.

Write ΔW = B·C with C = [g · λ_jk · A_ki · γ_ji] (r·n × m), for a layer whose small side has length m and whose large
side has length M. An operator multiplies a batch of T rows (T × side) without forming ΔW. Between the two products the
rows are *hidden*, in the family's own layout (the r·n columns of B in one way or another); `coefficients` holds C, in
the family's own form too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Sizes(NamedTuple):
    """Of the bases of one layer.

    Attributes:
        r: Basis rank.
        num_bases: n; the rank of ΔW is min(m, r·n), m where n = ⌈m/r⌉.
        small: m, the length of the side with the trained diagonals.
        large: M ≥ m, the length of the other side.
    """

    r: int
    num_bases: int
    small: int
    large: int


@dataclass(frozen=True)
class UpdateSpec:
    """What is fixed about an adapter on one layer.

    Attributes:
        sizes: Of its bases. λ and γ have n rows, or n for each of several updates that are summed.
        small_is_input: True where in ≤ out.
        scaling: g of eq. 4.
    """

    sizes: Sizes
    small_is_input: bool
    scaling: float


@runtime_checkable  # the tests check annotations at run time
class Operator(Protocol):
    """The arithmetic of one family for one layer shape.

    Attributes:
        keeps_coefficients: Whether C is a tensor no larger than γ, so that it may wait for the backward pass.
    """

    keeps_coefficients: ClassVar[bool]

    def pair(self) -> tuple[Tensor, Tensor]:
        """A (r, m) and B (M, r·n) written out, for the reference."""

    def coefficients(self, lambda_: Tensor, gamma: Tensor, scaling: float, dtype: torch.dtype) -> Any:
        """C in the family's form, computed in the dtype of λ (n, r) and γ (n, m) and rounded once to `dtype`."""

    def mix(self, coefficients: Any, small: Tensor) -> Tensor:
        """Small · Cᵀ: (T, m) -> hidden."""

    def unmix(self, coefficients: Any, hidden: Tensor, onto: Tensor | None = None) -> Tensor:
        """Hidden · C: hidden -> (T, m); added to `onto`, in place, where that is given."""

    def expand(self, hidden: Tensor, onto: Tensor | None = None) -> Tensor:
        """Hidden · Bᵀ: hidden -> (T, M); added to `onto`, in place, where that is given."""

    def project(self, large: Tensor) -> Tensor:
        """Large · B: (T, M) -> hidden."""

    def fold(self, coefficients: Any, weight: Tensor, out: Tensor | None = None) -> Tensor:
        """Weight + B · C for (M, m), in the weight's dtype or C's; every sum is rounded once; into `out` if given."""

    def rows(self, coefficients: Any, index: Tensor) -> Tensor:
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


class Rates(NamedTuple):
    """Prices of the cost model, or how often each is paid (see `dispatch.py`).

    Attributes:
        entry: An entry of a folded weight: read W₀, add, round, write. In multiply-adds of a large matrix product.
        product: A multiply-add of a product with B or C, with F_k or L.
    """

    entry: float
    product: float


class Work(NamedTuple):
    """Multiply-adds of the parts of a pass over T rows.

    Attributes:
        fold: Of forming ΔW; adding it to W₀ is counted by entries.
        to_small: Of the product between the hidden rows and the small side.
        to_large: Of the product between the hidden rows and the large side.
        gradients: Of the gradients of λ and γ, where nothing of the pass before can be used.
    """

    fold: float
    to_small: float
    to_large: float
    gradients: float


@runtime_checkable
class Form(Protocol):
    """What describes the bases of one layer: a named tuple of frozen tensors on one device.

    Its floating tensors are in the compute dtype. A form is passed through autograd tensor by tensor, and made again
    from them by `type(form)(*tensors)`.
    """

    @property
    def rates(self) -> Rates:
        """The prices of its operations."""

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype."""

    def __iter__(self) -> Iterator[Tensor]: ...

    def operator(self, sizes: Sizes) -> Operator:
        """The arithmetic of these bases."""

    def work(self, sizes: Sizes, tokens: int) -> Work:
        """What a pass over T rows does."""


def delta_weight(
    spec: UpdateSpec,
    form: Form,
    lambda_: Float[Tensor, "t r"],
    gamma: Float[Tensor, "t m"],
) -> Float[Tensor, "out in"]:
    """ΔW in the layout of a linear layer's weight and in the dtype of λ and of the form, by the operator's own fold."""
    small, large = spec.sizes.small, spec.sizes.large
    shape = (large, small) if spec.small_is_input else (small, large)
    return folded_weight(gamma.new_zeros(shape), spec, form, lambda_, gamma)


def delta_rows(
    index: Int[Tensor, "*batch"],
    spec: UpdateSpec,
    form: Form,
    lambda_: Float[Tensor, "t r"],
    gamma: Float[Tensor, "t m"],
) -> Float[Tensor, "*batch m"]:
    """Rows of ΔW where the small side is the input, in the dtype of the form, without forming the others.

    Args:
        index: Numbers of rows, from 0 to M - 1.
        spec: The adapter on this layer.
        form: What describes its bases.
        lambda_: Trained diagonals Λ.
        gamma: Trained diagonals Γ.
    """
    operator = form.operator(spec.sizes)
    coefficients = operator.coefficients(lambda_, gamma, spec.scaling, form.dtype)
    return operator.rows(coefficients, index.flatten()).view(*index.shape, spec.sizes.small)


def folded_weight(
    weight: Float[Tensor, "out in"],
    spec: UpdateSpec,
    form: Form,
    lambda_: Float[Tensor, "t r"],
    gamma: Float[Tensor, "t m"],
) -> Float[Tensor, "out in"]:
    """W₀ + ΔW, rounded once to the dtype of the form; a weight of a wider dtype keeps its low bits until then.

    Args:
        weight: W₀, any floating dtype and any strides.
        spec: The adapter on this layer.
        form: What describes its bases.
        lambda_: Trained diagonals Λ.
        gamma: Trained diagonals Γ.
    """
    operator = form.operator(spec.sizes)
    coefficients = operator.coefficients(lambda_, gamma, spec.scaling, form.dtype)
    folded = operator.fold(coefficients, weight if spec.small_is_input else weight.T).to(form.dtype)
    return folded if spec.small_is_input else folded.T
