"""A side of a layer cut into blocks, and its vectors as blocks of one width with zeros where an entry is missing."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Partition:
    """`count` contiguous blocks of at most `width` entries that make up `length`.

    The entries that are missing to count · width are missing one each in the last blocks (`spread`), or all in the last
    block.
    """

    length: int
    count: int
    width: int
    spread: bool

    @property
    def missing(self) -> int:
        """Entries by which the blocks are short."""
        return self.count * self.width - self.length

    @property
    def groups(self) -> tuple[tuple[slice, slice, int], ...]:
        """Runs of blocks of one width: which entries, which blocks, the width."""
        whole = self.count - (self.missing if self.spread else min(self.missing, 1))
        middle = whole * self.width
        first = slice(0, middle), slice(0, whole), self.width
        if not self.missing:
            return (first,)
        width = self.width - (1 if self.spread else self.missing)
        return first, (slice(middle, self.length), slice(whole, self.count), width)

    def split(self, entries: Float[Tensor, "*batch length"]) -> Float[Tensor, "*batch count width"]:
        """The blocks, short ones with zeros at their end; a view where none is short."""
        if not self.missing or not self.spread:
            return _pad(entries, self.count * self.width).unflatten(-1, (self.count, self.width))
        blocks = (
            _pad(entries[..., part].unflatten(-1, (which.stop - which.start, width)), self.width)
            for part, which, width in self.groups
        )
        return torch.cat(list(blocks), dim=-2)

    def join(self, blocks: Float[Tensor, "*batch count width"]) -> Float[Tensor, "*batch length"]:
        """The entries of blocks, without those that are missing; the inverse of `split`."""
        if not self.missing or not self.spread:
            return blocks.flatten(-2)[..., : self.length]
        return torch.cat([blocks[..., which, :width].flatten(-2) for _, which, width in self.groups], dim=-1)


def _pad(rows: Tensor, length: int) -> Tensor:
    """Zeros at the end of the last dimension, up to this length."""
    return F.pad(rows, (0, length - rows.shape[-1])) if rows.shape[-1] < length else rows
