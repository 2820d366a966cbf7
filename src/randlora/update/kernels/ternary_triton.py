"""The Triton form of the packed ternary products: a tiled product whose left side is unpacked in registers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Bytes of a row of B per step: four products with that many entries each. tl.dot takes no fewer than 16; not tuned.
BLOCK_BYTES = 32
# Two stages, so that the tiles fit the 99 KiB of shared memory of the smaller devices.
LAUNCH = {"num_warps": 8, "num_stages": 2}


def ternary_triton(weight: Tensor | None, packed: Tensor, matrix: Tensor) -> Tensor:
    """See `ternary_fold`; shapes are not checked here, a wrong one reads foreign memory."""
    rows, (inner, columns) = packed.shape[0], matrix.shape
    out = matrix.new_empty(rows, columns) if weight is None else torch.empty_like(weight)
    added = out if weight is None else weight
    block_rows = 64 if matrix.dtype == torch.float32 else 128
    block_columns = min(max(triton.next_power_of_2(columns), 16), block_rows)
    grid = (triton.cdiv(rows, block_rows), triton.cdiv(columns, block_columns))
    with torch.cuda.device_of(matrix):
        ternary_kernel[grid](
            added,
            packed,
            matrix,
            out,
            rows,
            packed.shape[1],
            inner,
            columns,
            *added.stride(),
            *packed.stride(),
            *matrix.stride(),
            *out.stride(),
            ADDS=weight is not None,
            BLOCK_ROWS=block_rows,
            BLOCK_BYTES=BLOCK_BYTES,
            BLOCK_COLUMNS=block_columns,
            **LAUNCH,
        )
    return out


@triton.jit
def ternary_kernel(
    weight,
    packed,
    matrix,
    out,
    rows,
    row_bytes,
    inner,
    columns,
    weight_row,
    weight_column,
    packed_row,
    packed_byte,
    matrix_row,
    matrix_column,
    out_row,
    out_column,
    ADDS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_BYTES: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """The order of a sum is free: each step multiplies the first entries of all its bytes, then the second, ...

    So nothing has to be interleaved; the rows of the right side are read in steps of four.
    """
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    far_row, far_column = row.to(tl.int64)[:, None], column.to(tl.int64)[None, :]  # a matrix may have 2³¹ entries
    total = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], tl.float32)
    for start in range(0, row_bytes, BLOCK_BYTES):
        byte = start + tl.arange(0, BLOCK_BYTES)
        stored = (row < rows)[:, None] & (byte < row_bytes)[None, :]
        codes = tl.load(packed + far_row * packed_row + byte[None, :] * packed_byte, mask=stored, other=0).to(tl.int32)
        for digit in tl.static_range(4):
            code = (
                codes >> (2 * digit)
            ) & 3  # 3 stands for -1; chosen, since integers convert at a quarter of the rate
            entries = tl.where(code == 1, 1.0, tl.where(code == 3, -1.0, 0.0))
            entry = 4 * byte + digit
            inside = (entry < inner)[:, None] & (column < columns)[None, :]
            place = matrix + entry.to(tl.int64)[:, None] * matrix_row + far_column * matrix_column
            values = tl.load(place, mask=inside, other=0.0)
            total = tl.dot(entries.to(values.dtype), values, total, input_precision="ieee")
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    if ADDS:
        base = tl.load(weight + far_row * weight_row + far_column * weight_column, mask=inside)
        total += base.to(tl.float32)
    tl.store(out + far_row * out_row + far_column * out_column, total.to(out.dtype.element_ty), mask=inside)
