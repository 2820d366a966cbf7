"""Where the columns of a structured layer lie in its r blocks of n or n - 1 columns."""

import torch
from torch import Tensor


def whole_blocks(small: int, n: int, r: int) -> int:
    """How many of the r blocks have n columns; the ones after them have n - 1."""
    return small - r * (n - 1)


def block_of_columns(small: int, n: int, r: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The block k of every column, and its place in the block: int64, (m,) each."""
    whole = whole_blocks(small, n, r)
    column = torch.arange(small, device=device)
    past = column - whole * n
    block = torch.where(past < 0, column // n, whole + past // max(n - 1, 1))
    return block, torch.where(past < 0, column % n, past % max(n - 1, 1))
