"""Structured bases: A adds up the columns of one block of inputs, B is a signed Kronecker product of Hadamard blocks.

Row k of A (r × m) is 1 on the k-th of r contiguous blocks of columns and 0 elsewhere, so every column has one nonzero
and the coefficients C = Λ·A·Γ are r dense blocks of n × n. B (M × r·n) is the leading part of L ⊗ R, with L (⌈M/n⌉ × r)
and R (n × n) leading blocks of Hadamard matrices whose rows have random signs. So the update of block k of the columns
is L's column k ⊗ (R · C_k): one n × m matrix R·C, repeated down the rows with the signs of L. Nothing dense is stored.

Random signs on the columns of A or of B, and a random order of them, would change nothing: λ and γ absorb them.
"""

from math import sqrt

import torch
from torch import Tensor

from randlora.bases.dense import digest, held_in
from randlora.bases.hadamard import hadamard_factors, hadamard_order
from randlora.bases.rng import random_words
from randlora.update import Sizes, StructuredForm

_STREAM_LEFT, _STREAM_OUTER, _STREAM_INNER = 2, 3, 4
# Up to this order R is one matrix, a single product; above, two factors cost less and hold n numbers in place of n².
_LARGEST_SINGLE_FACTOR = 64


class StructuredBases:
    """Structured bases of a seed, for every layer shape.

    Args:
        seed: Any int of at most 64 bits.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._held: dict[tuple[int, int, int, torch.device], StructuredForm] = {}

    def scale(self, r: int) -> float:
        """√r gives A unit variance (one of r entries of a column is 1); B has it already."""
        return sqrt(r)

    def reserve(self, sizes: Sizes) -> None:
        """Nothing to reserve."""

    def form(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> StructuredForm:
        """The factors for a layer."""
        key = (sizes.r, sizes.num_bases, sizes.large, device)
        if key not in self._held:
            self._held[key] = _draw(self.seed, *key, dtype)
        return held_in(self._held, key, dtype)

    def stored_bytes(self) -> int:
        """Nothing dense is stored."""
        return 0

    def fingerprint(self) -> str:
        """A hash of the description of two fixed shapes, one with a single factor and one with two."""
        shapes = ((7, 7, 80), (2, 96, 256))  # (r, n, M)
        drawn = (t for shape in shapes for t in _draw(self.seed, *shape, torch.device("cpu"), torch.float32))
        return digest("structured", *drawn)


def _draw(seed: int, r: int, bases_count: int, large: int, device: torch.device, dtype: torch.dtype) -> StructuredForm:
    rows = max(r, -(-large // bases_count))
    # A first use inside inference_mode, or under a default device of the caller's, must not mark these tensors.
    with torch.inference_mode(mode=False), torch.no_grad(), torch.device("cpu"):
        left = torch.kron(*hadamard_factors(hadamard_order(rows)))[:rows, :r]
        outer, inner = hadamard_factors(hadamard_order(bases_count))
        left = _random_row_signs(left, seed, _STREAM_LEFT)
        if bases_count <= _LARGEST_SINGLE_FACTOR:
            outer, inner = torch.ones(1, 1), torch.kron(outer, inner)[:bases_count, :bases_count]
        else:
            outer = _random_row_signs(outer, seed, _STREAM_OUTER)
        inner = _random_row_signs(inner, seed, _STREAM_INNER)
        return StructuredForm(*(factor.to(device, dtype) for factor in (left, outer, inner)))


def _random_row_signs(matrix: Tensor, seed: int, stream: int) -> Tensor:
    words = random_words(seed, stream, range(1), matrix.shape[0])[0]
    return matrix.float() * (1 - 2 * (words & 1))[:, None]
