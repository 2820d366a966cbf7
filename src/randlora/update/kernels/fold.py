"""W + ΔW for structured bases, in one pass over the weight."""

import torch
from jaxtyping import Float
from torch import Tensor

from randlora.errors import UpdateError
from randlora.update.kernels.blocks import block_of_columns
from randlora.update.kernels.selection import available


def structured_fold(
    weight: Float[Tensor, "M m"], update: Float[Tensor, "n m"], left: Float[Tensor, "a r"]
) -> Float[Tensor, "M m"]:
    """out[a·n + q, i] = weight[a·n + q, i] + left[a, k(i)] · update[q, i], with k(i) the block of column i.

    Summed in float32 (float64 where the weight is) and rounded once to the weight's dtype. A custom operator of
    PyTorch's: the Triton kernel where `available` says so, else plain PyTorch. It has no derivative.

    Args:
        weight: W, any strides; row by row and column by column are read in their own order.
        update: F = R·C by columns, in any floating dtype and strides.
        left: L, a = ⌈M/n⌉ signs for each of the r blocks.

    Returns:
        W + ΔW in the dtype and layout of the weight.

    Raises:
        UpdateError: The shapes do not fit each other.
    """
    large, small, n = *weight.shape, update.shape[0]
    blocks = -(-large // n)
    if update.shape[1] != small or left.shape[0] != blocks or -(-small // left.shape[1]) != n:
        raise UpdateError(
            "structured_fold",
            expected=f"update (n, {small}) and left (⌈{large}/n⌉, r) with n = ⌈{small}/r⌉",
            got=f"update {tuple(update.shape)} and left {tuple(left.shape)}",
        )
    return _operator(weight, update, left)


def structured_fold_torch(weight: Tensor, update: Tensor, left: Tensor) -> Tensor:
    """The PyTorch form: the formula with both factors gathered to the size of the weight."""
    large, small, n = *weight.shape, update.shape[0]
    exact = torch.promote_types(weight.dtype, torch.float32)
    block, _ = block_of_columns(small, n, left.shape[1], weight.device)
    row = torch.arange(large, device=weight.device)
    signs, repeated = left.to(exact)[row // n][:, block], update.to(exact)[row % n]
    return torch.empty_like(weight).copy_(weight.to(exact) + signs * repeated)


@torch.library.custom_op(
    "randlora::structured_fold", mutates_args=(), schema="(Tensor weight, Tensor update, Tensor left) -> Tensor"
)
def _operator(weight: Tensor, update: Tensor, left: Tensor) -> Tensor:
    if available(weight):
        from randlora.update.kernels.fold_triton import structured_fold_triton  # noqa: PLC0415

        return structured_fold_triton(weight, update, left)
    return structured_fold_torch(weight, update, left)


@_operator.register_fake
def _(weight: Tensor, update: Tensor, left: Tensor) -> Tensor:  # noqa: ARG001 - the signature of the operator
    return torch.empty_like(weight)
