"""Structured bases: A with one ±1 in every column, B the leading block of a Hadamard matrix with random row signs.

Nothing dense is stored: a layer needs two index vectors, two sign vectors and two small Hadamard factors. Per layer
shape, A (r × m) sends column i to row π(i) mod r with a random sign; since every column has one nonzero, the scaled
coefficients C = Λ·A·Γ are r dense blocks of about n × n, up to a permutation of the columns.

The slots are those blocks laid side by side: slot k·n + q holds the q-th column that A sends to its row k. Where m is
not a multiple of r some blocks are one column short and their last slot is padding.
"""

from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from randlora.bases.dense import cast_tensors, digest
from randlora.bases.hadamard import hadamard_factors, hadamard_order
from randlora.bases.rng import random_words

_STREAM_PERMUTATION, _STREAM_COLUMN_SIGN, _STREAM_ROW_SIGN = 2, 3, 4


class StructuredTensors(NamedTuple):
    """What describes A (r × m) and B (M × r·n) of one layer shape."""

    slot: Tensor  # (m,) int64: the slot of column i
    source: Tensor  # (r, n) int64: the column in each slot; a padding slot repeats column 0
    sign: Tensor  # (r, n): ±1, the nonzero of A in each slot; 0 in a padding slot
    row_sign: Tensor  # (M,): ±1, the sign of each row of B
    left: Tensor  # (a', c') and
    right: Tensor  # (b, b): Hadamard factors, B = diag(row_sign) · (left ⊗ right)[:M, :r·n]


class StructuredBases:
    """Structured bases of a seed, for every layer shape.

    Args:
        seed: Any int of at most 64 bits.
    """

    kind = "structured"

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._held: dict[tuple[int, int, int, torch.device], tuple[Tensor, ...]] = {}

    def scale(self, r: int) -> float:
        """√r gives A unit variance (one of r entries of a column is ±1); B has it already."""
        return sqrt(r)

    def reserve(self, r: int, small: int, large: int) -> None:
        """Nothing to reserve."""

    def tensors(self, r: int, small: int, large: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The `StructuredTensors` for a layer with sides `small` ≤ `large` and basis rank `r`."""
        key = (r, small, large, device)
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = _draw(self.seed, *key, dtype)
        if held[-1].dtype != dtype:
            held = cast_tensors(held, dtype)
            if not torch.compiler.is_compiling():
                self._held[key] = held
        return held

    def stored_bytes(self) -> int:
        """Nothing dense is stored."""
        return 0

    def fingerprint(self) -> str:
        """A hash of the description of one fixed shape."""
        return digest("structured", *_draw(self.seed, 7, 48, 80, torch.device("cpu"), torch.float32))


def _draw(seed: int, r: int, small: int, large: int, device: torch.device, dtype: torch.dtype) -> StructuredTensors:
    bases_count = -(-small // r)
    columns = r * bases_count
    # A first use inside inference_mode, or under a default device of the caller's, must not mark these tensors.
    with torch.inference_mode(mode=False), torch.no_grad(), torch.device("cpu"):
        # π, as the rank of each column's random word; a stable sort settles ties alike everywhere.
        order = torch.argsort(_row(seed, _STREAM_PERMUTATION, small), stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(small)
        slot = (place % r) * bases_count + place // r
        source = torch.zeros(columns, dtype=torch.int64)
        source[slot] = torch.arange(small)
        sign = torch.zeros(columns, dtype=torch.float32)
        sign[slot] = _signs(seed, _STREAM_COLUMN_SIGN, small)
        left, right = hadamard_factors(hadamard_order(max(large, columns)))
        width = right.shape[0]
        left = left[: -(-large // width), : -(-columns // width)]
        return StructuredTensors(
            slot.to(device),
            source.view(r, bases_count).to(device),
            sign.view(r, bases_count).to(device, dtype),
            _signs(seed, _STREAM_ROW_SIGN, large).to(device, dtype),
            left.to(device, dtype),
            right.to(device, dtype),
        )


def _row(seed: int, stream: int, columns: int) -> Tensor:
    return random_words(seed, stream, range(1), columns)[0]


def _signs(seed: int, stream: int, columns: int) -> Tensor:
    return (1 - 2 * (_row(seed, stream, columns) & 1)).float()
