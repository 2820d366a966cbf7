"""Structured ΔW added to a weight that lies column by column: the layers whose output is the small side.

Row i of such a weight, read along the memory, gets row i of F over and over, each time with the sign of its block: the
outer product of the signs (p) and of that row (n). As one broadcast operation its innermost loop would be as short as a
block, and take three to seven times as long. As a batch of matrix products of inner length 1 it costs no more than a
pass of `addcmul` over the weight, where such products are fast; elsewhere F's rows and the signs are written out for
some rows of the weight at a time, which stay in the cache.

All forms give the same bits: a product with a sign is exact, and the sum with W₀ is rounded once.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from randlora.update.partition import Partition
from randlora.update.scratch import scratch

_PIECE = 2**17  # entries of the weight that are worked on at once
_PRODUCT_PIECE = 2**20  # the same, of outer products on the way to a weight of another dtype
_SMALLEST_FLOAT_PRODUCT = 400  # PyTorch leaves smaller float32 matrices of a batch to a plain loop


def fold_columnwise(
    weight: Float[Tensor, "m M"],
    update: Float[Tensor, "m n"],
    left: Float[Tensor, "p r"],
    columns: Partition,
    rows: Partition,
    out: Float[Tensor, "m M"],
) -> None:
    """Write the transpose of W₀ + ΔW.

    Args:
        weight: W₀ with the small side first, each row contiguous.
        update: F, joined, with the small side first.
        left: L.
        columns: How the small side is cut.
        rows: How the large side is cut.
        out: Where to write.
    """
    signs = columns.join(left[:, :, None].expand(-1, -1, columns.width)).T  # of the block of every row
    for part, which, height in rows.groups:
        if height == 0:  # more blocks than rows
            continue
        blocks = signs[:, which], update[:, :height]
        if not _products_are_fast(update, blocks[0].shape[1] * height):
            _add_written_out(weight[:, part], *blocks, out[:, part])
        elif weight.dtype == update.dtype == out.dtype:
            shape = blocks[0].shape[1], height
            outer = blocks[0][:, :, None], blocks[1][:, None, :]
            torch.baddbmm(weight[:, part].unflatten(1, shape), *outer, out=out[:, part].unflatten(1, shape))
        else:
            _add_products(weight[:, part], *blocks, out[:, part])


def _products_are_fast(update: Tensor, entries: int) -> bool:
    """Whether a batch of outer products, each of so many entries, is done by a library of matrix products."""
    if update.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return update.dtype == torch.float32 and entries >= _SMALLEST_FLOAT_PRODUCT


def _add_products(weight: Tensor, signs: Tensor, update: Tensor, out: Tensor) -> None:
    """Out = weight + outer products, which are of another dtype than the weight."""
    for some in _pieces(weight, _PRODUCT_PIECE):
        shape = len(weight[some]), signs.shape[1], update.shape[1]
        outer = signs[some, :, None], update[some, None, :]
        products = torch.bmm(*outer, out=scratch("tiled", update, shape)).flatten(1)
        torch.add(weight[some], products, out=out[some])


def _add_written_out(weight: Tensor, signs: Tensor, update: Tensor, out: Tensor) -> None:
    """Out = weight + signs · tiles, with both written out."""
    for some in _pieces(weight, _PIECE):
        shape = len(weight[some]), signs.shape[1], update.shape[1]
        tiled = torch.cat([update[some, None, :].expand(shape)], out=scratch("tiled", update, shape))
        chosen = torch.cat([signs[some, :, None].expand(shape)], out=scratch("signs", update, shape))
        torch.addcmul(weight[some], chosen.flatten(1), tiled.flatten(1), out=out[some])


def _pieces(weight: Tensor, entries: int) -> list[slice]:
    step = max(1, entries // weight.shape[1])
    return [slice(first, first + step) for first in range(0, len(weight), step)]
