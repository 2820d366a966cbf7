"""Products with packed ternary matrices, unpacked tile by tile in front of the product.

With B (M × r·n) packed row by row, `fold` and `expand` are products with B; with Bᵀ packed, `project` is one too:

    fold:     ternary_fold(weight, pack(B), C)                (M, m)
    expand:   ternary_product(pack(B), hidden.T).T            (T, M)
    project:  ternary_product(pack(B.T), large.T).T           (T, r·n)
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from randlora.errors import UpdateError
from randlora.update.kernels.packing import packed_length, unpack_ternary
from randlora.update.kernels.selection import available


def ternary_fold(
    weight: Float[Tensor, "rows columns"], packed: UInt8[Tensor, "rows bytes"], matrix: Float[Tensor, "inner columns"]
) -> Float[Tensor, "rows columns"]:
    """Weight + unpack(packed) · matrix.

    A custom operator of PyTorch's: the Triton kernel where `available` says so, else plain PyTorch. It has no
    derivative.

    Args:
        weight: W, any strides.
        packed: B, packed by `pack_ternary`.
        matrix: C, any strides; its dtype is the one that B is unpacked to.

    Returns:
        The sum in the dtype and layout of the weight.

    Raises:
        UpdateError: The shapes do not fit each other.
    """
    _check(packed, matrix)
    if weight.shape != (packed.shape[0], matrix.shape[1]):
        raise UpdateError(
            "ternary_fold", expected=f"weight {(packed.shape[0], matrix.shape[1])}", got=f"{tuple(weight.shape)}"
        )
    return _operator(weight, packed, matrix)


def ternary_product(
    packed: UInt8[Tensor, "rows bytes"], matrix: Float[Tensor, "inner columns"]
) -> Float[Tensor, "rows columns"]:
    """unpack(packed) · matrix in the dtype of the matrix; otherwise as `ternary_fold`."""
    _check(packed, matrix)
    return _operator(None, packed, matrix)


def _check(packed: Tensor, matrix: Tensor) -> None:
    if packed.shape[1] != packed_length(matrix.shape[0]):
        raise UpdateError(
            "a product with a packed ternary matrix",
            expected=f"{packed_length(matrix.shape[0])} bytes a row for {matrix.shape[0]} entries",
            got=f"{packed.shape[1]}",
        )


def ternary_torch(weight: Tensor | None, packed: Tensor, matrix: Tensor) -> Tensor:
    """The PyTorch form: unpack all of it, then one product; in the dtype of `matrix` under autocast too."""
    entries = unpack_ternary(packed, matrix.shape[0], matrix.dtype)
    with torch.autocast(matrix.device.type, enabled=False):
        if weight is None:
            return entries @ matrix
        same = weight.dtype == matrix.dtype
        total = torch.addmm(weight, entries, matrix) if same else weight + entries @ matrix
    return torch.empty_like(weight).copy_(total)


@torch.library.custom_op(
    "randlora::ternary_addmm", mutates_args=(), schema="(Tensor? weight, Tensor packed, Tensor matrix) -> Tensor"
)
def _operator(weight: Tensor | None, packed: Tensor, matrix: Tensor) -> Tensor:
    if available(matrix):
        from randlora.update.kernels.ternary_triton import ternary_triton  # noqa: PLC0415

        return ternary_triton(weight, packed, matrix)
    return ternary_torch(weight, packed, matrix)


@_operator.register_fake
def _(weight: Tensor | None, packed: Tensor, matrix: Tensor) -> Tensor:
    return matrix.new_empty(packed.shape[0], matrix.shape[1]) if weight is None else torch.empty_like(weight)
