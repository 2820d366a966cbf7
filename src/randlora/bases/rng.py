"""Philox4x32-10: random words as a pure function of (key, counter), in integer arithmetic.

A counter-based generator has no state, so word number i does not depend on how many words were drawn before, on the
device, on the dtype of the model or on the version of a library. Everything here is int64 arithmetic, whose wrap-around
is the same on every device; a 32-bit word is held in the low half of an int64.

Salmon, Moraes, Dror & Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
"""

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def _multiply(word: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of word × constant; the 64-bit product may wrap to a negative int64, its bits are right."""
    product = word * constant
    return (product >> 32) & _MASK, product & _MASK


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Four random 32-bit words for each counter.

    Args:
        counter: Four int64 tensors of one shape, each holding 32-bit words.
        key: Two 32-bit words.

    Returns:
        Four int64 tensors of that shape with values in [0, 2³²).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def random_words(seed: int, stream: int, rows: range, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """Rows of a matrix of 32-bit random words whose entry (i, j) depends on seed, stream, i and j alone.

    So a smaller matrix is the corner of a larger one: layers of different shapes can share one stored matrix.

    Args:
        seed: The key, any int of at most 64 bits.
        stream: Which of the independent matrices of this seed.
        rows: Which rows, a range of step 1.
        columns: Number of columns.
        device: Where to compute; the words are the same everywhere.

    Returns:
        int64 tensor (len(rows), columns), values in [0, 2³²).
    """
    blocks = -(-columns // 4)
    row = torch.arange(rows.start, rows.stop, dtype=torch.int64, device=device)[:, None].expand(-1, blocks)
    block = torch.arange(blocks, dtype=torch.int64, device=device)[None, :].expand(len(rows), -1)
    constant = torch.full_like(row, stream)
    words = philox((block, row, constant, torch.zeros_like(row)), (seed & _MASK, (seed >> 32) & _MASK))
    return torch.stack(words, dim=-1).reshape(len(rows), 4 * blocks)[:, :columns]
