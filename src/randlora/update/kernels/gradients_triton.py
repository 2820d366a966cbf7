"""The Triton form of `structured_gradients`: some rows (j, k) of dC per program, from their start to their end."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from randlora.update.kernels.blocks import whole_blocks

# Entries of dC that a program holds at a time, and the longest piece of a row among them; not tuned.
_TILE, _LONGEST = 1024, 256


def structured_gradients_triton(
    gradient: Tensor, lambda_: Tensor, gamma: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """See `structured_gradients`; shapes are not checked here, a wrong one reads foreign memory."""
    n, r = lambda_.shape
    lambda_gradient, gamma_gradient = lambda_.new_empty(lambda_.shape), gamma.new_empty(gamma.shape)
    block_slots = min(triton.next_power_of_2(n), _LONGEST)
    block_rows = _TILE // block_slots
    with torch.cuda.device_of(gradient):
        structured_gradients_kernel[(triton.cdiv(n * r, block_rows),)](
            gradient,
            lambda_,
            gamma,
            lambda_gradient,
            gamma_gradient,
            scaling,
            n,
            r,
            whole_blocks(gamma.shape[1], n, r),
            *gradient.stride(),
            *lambda_.stride(),
            *gamma.stride(),
            gamma_gradient.stride(0),
            BLOCK_ROWS=block_rows,
            BLOCK_SLOTS=block_slots,
        )
    return lambda_gradient, gamma_gradient


@triton.jit
def structured_gradients_kernel(
    gradient,
    lambda_,
    gamma,
    lambda_gradient,
    gamma_gradient,
    scaling,
    n,
    r,
    whole,
    gradient_basis,
    gradient_block,
    gradient_slot,
    lambda_basis,
    lambda_block,
    gamma_basis,
    gamma_column,
    gamma_gradient_basis,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
):
    """A row (j, k) is the part of basis j in block k: its sum is one dλ, its products are the dγ of the block.

    Nobody else writes either, so no atomics and no second pass.
    """
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    basis, block = row // r, row % r
    real = row < n * r
    width = tl.where(block < whole, n, n - 1)
    first = block * n - tl.maximum(block - whole, 0)
    scaled = scaling * tl.load(lambda_ + basis * lambda_basis + block * lambda_block, mask=real).to(tl.float32)
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    for start in range(0, n, BLOCK_SLOTS):
        slot = start + tl.arange(0, BLOCK_SLOTS)
        inside = real[:, None] & (slot[None, :] < width[:, None])
        place = gradient + (basis * gradient_basis + block * gradient_block)[:, None] + slot[None, :] * gradient_slot
        change = tl.load(place, mask=inside, other=0.0).to(tl.float32)
        column = first[:, None] + slot[None, :]
        weight = tl.load(gamma + (basis * gamma_basis)[:, None] + column * gamma_column, mask=inside, other=0.0)
        total += tl.sum(change * weight.to(tl.float32), axis=1)
        product = (change * scaled[:, None]).to(gamma_gradient.dtype.element_ty)
        tl.store(gamma_gradient + (basis * gamma_gradient_basis)[:, None] + column, product, mask=inside)
    tl.store(lambda_gradient + row, (scaling * total).to(lambda_gradient.dtype.element_ty), mask=real)
