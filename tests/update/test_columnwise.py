"""A fold into a weight that lies column by column: outer products and written-out signs give the formula's bits."""

import pytest
import torch

from randlora.update import columnwise
from randlora.update.partition import Partition

BF16, HALF, FLOAT, DOUBLE = torch.bfloat16, torch.float16, torch.float32, torch.float64
# m, M, r: blocks that fit, short blocks of columns, of rows, a last block cut off, more rows
# than one piece holds, more blocks than rows.
SHAPES = [(64, 128, 8), (30, 47, 7), (33, 35, 4), (100, 700, 7), (24, 100_000, 3), (5, 7, 9), (1, 3, 40)]


@pytest.mark.parametrize("products", [None, False], ids=["chosen", "written out"])
@pytest.mark.parametrize(
    ("weight_dtype", "dtype", "out_dtype"),
    [
        (BF16, BF16, BF16),
        (FLOAT, BF16, BF16),
        (FLOAT, BF16, FLOAT),
        (FLOAT, FLOAT, FLOAT),
        (HALF, HALF, HALF),
        (DOUBLE, DOUBLE, DOUBLE),
    ],
    ids=str,
)
@pytest.mark.parametrize(("small", "large", "r"), SHAPES)
def test_every_form_rounds_the_sum_once(small, large, r, weight_dtype, dtype, out_dtype, products, monkeypatch):
    if products is not None:
        monkeypatch.setattr(columnwise, "_products_are_fast", lambda *_: products)
    generator = torch.Generator().manual_seed(small)
    width = -(-small // r)
    blocks = max(r, -(-large // width))
    columns = Partition(small, r, width, spread=True)
    rows = Partition(large, blocks, width, spread=blocks == r)
    weight = torch.randn(small, large, generator=generator).to(weight_dtype)
    update = torch.randn(small, width, generator=generator).to(dtype)
    left = torch.randn(blocks, r, generator=generator).sign().to(dtype)
    out = torch.full((small, large), torch.nan, dtype=out_dtype)
    with torch.no_grad():
        columnwise.fold_columnwise(weight, update, left, columns, rows, out)
    block_of = torch.cat([torch.arange(w.start, w.stop).repeat_interleave(width) for _, w, width in columns.groups])
    block = torch.cat([torch.arange(w.start, w.stop).repeat_interleave(height) for _, w, height in rows.groups])
    place = torch.cat([torch.arange(height).repeat(w.stop - w.start) for _, w, height in rows.groups])
    wide = torch.promote_types(weight_dtype, FLOAT)
    delta = left[block][:, block_of].T.to(wide) * update[:, place].to(wide)
    assert torch.equal(out, (weight.to(wide) + delta).to(out_dtype))
