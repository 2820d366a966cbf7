"""The Triton form of `structured_fold`: one tile of the weight per program."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from randlora.update.kernels.blocks import whole_blocks

# Entries of a tile along the side that is contiguous in memory, and along the other; not tuned.
_ALONG, _ACROSS = 128, 32


def structured_fold_triton(weight: Tensor, update: Tensor, left: Tensor) -> Tensor:
    """See `structured_fold`; shapes are not checked here, a wrong one reads foreign memory."""
    (large, small), (n, r) = weight.shape, (update.shape[0], left.shape[1])
    out = torch.empty_like(weight)
    by_columns = weight.stride(0) < weight.stride(1)
    block_rows, block_columns = (_ALONG, _ACROSS) if by_columns else (_ACROSS, _ALONG)
    grid = (triton.cdiv(large, block_rows), triton.cdiv(small, block_columns))
    with torch.cuda.device_of(weight):
        structured_fold_kernel[grid](
            weight,
            update,
            left,
            out,
            large,
            small,
            n,
            max(n - 1, 1),
            whole_blocks(small, n, r),
            *weight.stride(),
            *update.stride(),
            *left.stride(),
            *out.stride(),
            BLOCK_ROWS=block_rows,
            BLOCK_COLUMNS=block_columns,
        )
    return out


@triton.jit
def structured_fold_kernel(
    weight,
    update,
    left,
    out,
    large,
    small,
    n,
    short,  # columns of a short block; 1 where there are none, for the division
    whole,
    weight_row,
    weight_column,
    update_row,
    update_column,
    left_row,
    left_column,
    out_row,
    out_column,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """F is gathered by row modulo n and L by row over n: they are small and stay in the caches.

    The compiler reads each operand in the order of its own strides and turns F in shared memory where the weight lies
    column by column.
    """
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    past = column - whole * n
    block = tl.where(past < 0, column // n, whole + past // short)
    inside = (row < large)[:, None] & (column < small)[None, :]
    far_row, far_column = row.to(tl.int64)[:, None], column.to(tl.int64)[None, :]  # a weight may have 2³¹ entries
    base = tl.load(weight + far_row * weight_row + far_column * weight_column, mask=inside)
    change = tl.load(update + (row % n)[:, None] * update_row + column[None, :] * update_column, mask=inside)
    sign = tl.load(left + (row // n)[:, None] * left_row + block[None, :] * left_column, mask=inside)
    total = base.to(tl.float32) + sign.to(tl.float32) * change.to(tl.float32)
    tl.store(out + far_row * out_row + far_column * out_column, total.to(out.dtype.element_ty), mask=inside)
