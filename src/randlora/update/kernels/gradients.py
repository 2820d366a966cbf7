"""The gradients of λ and γ for structured bases, from that of C, in one pass over it."""

import torch
from jaxtyping import Float
from torch import Tensor

from randlora.errors import UpdateError
from randlora.update.kernels.blocks import block_of_columns
from randlora.update.kernels.selection import available


def structured_gradients(
    gradient: Float[Tensor, "n r n"], lambda_: Float[Tensor, "n r"], gamma: Float[Tensor, "n m"], scaling: float
) -> tuple[Float[Tensor, "n r"], Float[Tensor, "n m"]]:
    """dλ_jk = g Σ_i dC_jki γ_ji over the columns i of block k, and dγ_ji = g dC_jki λ_jk for its block k.

    A custom operator of PyTorch's: the Triton kernel where `available` says so, else plain PyTorch. It has no
    derivative.

    Args:
        gradient: dC by slots, any strides and floating dtype; what stands at the end of short blocks is not read.
        lambda_: λ.
        gamma: γ.
        scaling: g.

    Returns:
        dλ and dγ, contiguous, in the dtypes of λ and γ.

    Raises:
        UpdateError: The shapes do not fit each other.
    """
    (n, r), small = lambda_.shape, gamma.shape[1]
    if gradient.shape != (n, r, n) or gamma.shape[0] != n or -(-small // r) != n:
        raise UpdateError(
            "structured_gradients",
            expected=f"gradient (n, r, n) and gamma (n, m) for lambda_ (n, r) = {(n, r)}, n = ⌈m/r⌉",
            got=f"gradient {tuple(gradient.shape)} and gamma {tuple(gamma.shape)}",
        )
    return _operator(gradient, lambda_, gamma, scaling)


def structured_gradients_torch(
    gradient: Tensor, lambda_: Tensor, gamma: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """The PyTorch form: dC by columns, then elementwise products and a sum over each block."""
    n, r = lambda_.shape
    block, place = block_of_columns(gamma.shape[1], n, r, gamma.device)
    by_column = scaling * gradient[:, block, place].to(gamma.dtype)
    lambda_gradient = torch.zeros_like(lambda_, memory_format=torch.contiguous_format)
    lambda_gradient.index_add_(1, block, (by_column * gamma).to(lambda_.dtype))
    return lambda_gradient, by_column * lambda_[:, block].to(gamma.dtype)


@torch.library.custom_op(
    "randlora::structured_gradients",
    mutates_args=(),
    schema="(Tensor gradient, Tensor lambda_, Tensor gamma, float scaling) -> (Tensor, Tensor)",
)
def _operator(gradient: Tensor, lambda_: Tensor, gamma: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    if available(gradient):
        from randlora.update.kernels.gradients_triton import structured_gradients_triton  # noqa: PLC0415

        return structured_gradients_triton(gradient, lambda_, gamma, scaling)
    return structured_gradients_torch(gradient, lambda_, gamma, scaling)


@_operator.register_fake
def _(gradient: Tensor, lambda_: Tensor, gamma: Tensor, scaling: float) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return lambda_.new_empty(lambda_.shape), gamma.new_empty(gamma.shape)
