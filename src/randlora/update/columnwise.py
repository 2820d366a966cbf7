"""Structured ΔW added to a weight that lies column by column: the layers whose output is the small side.

Row i of such a weight, read along the memory, gets row i of F over and over, each time with the sign of its block. As
one broadcast operation its innermost loop would be as short as a block, and take three to seven times as long. So F's
rows and the signs are written out for some rows of the weight at a time, which stay in the cache.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from randlora.update.partition import Partition
from randlora.update.scratch import scratch

_PIECE = 2**17  # entries of the weight that are worked on at once


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
    blocks = [torch.arange(which.start, which.stop).repeat_interleave(width) for _, which, width in columns.groups]
    block_of_row = torch.cat(blocks)
    for part, which, height in rows.groups:
        signs = left[which].T.repeat_interleave(height, dim=1)
        count, length = which.stop - which.start, part.stop - part.start
        step = max(1, _PIECE // length)
        for first in range(0, weight.shape[0], step):
            some = slice(first, min(first + step, weight.shape[0]))
            shape = some.stop - some.start, length
            repeated = update[some, None, :height].expand(-1, count, -1)
            tiled = torch.cat([repeated], out=scratch("tiled", update, repeated.shape)).flatten(1)
            chosen = torch.index_select(signs, 0, block_of_row[some], out=scratch("signs", update, shape))
            torch.addcmul(weight[some, part], chosen, tiled, out=out[some, part])
