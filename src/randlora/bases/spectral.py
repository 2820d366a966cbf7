"""Bases from the pre-trained weight itself: its singular vectors, computed again at load and in no checkpoint."""

from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from randlora.bases.dense import cast_tensors
from randlora.update import DenseForm, Sizes


class Factors(NamedTuple):
    """U (*stack, out, k), σ (*stack, k) and V (*stack, in, k) of W₀ ≈ U·diag(σ)·Vᵀ."""

    U: Tensor
    sigma: Tensor
    V: Tensor


DECOMPOSITION_VERSION = 2
"""Version of `decompose`, which an adapter records.

Version 1 took the weights in the dtype that they were loaded in: those of a float32 model, loaded in bfloat16, have
other singular vectors where singular values lie close together. Its sign made the largest entry of u positive.
"""


def decompose(weight: Tensor, k: int, version: int = DECOMPOSITION_VERSION) -> Factors:
    """The k largest singular values of a weight rounded to bfloat16, and their vectors, in float64.

    A model loaded in bfloat16 has the rounded weights of the same model in float32: their singular vectors are the
    same. Of each pair (u, v), which is determined up to a common sign, the product of u and a fixed vector is positive:
    as little as a product can, it changes its sign with a small change of u. Vectors of equal singular values are not
    determined.

    Args:
        weight: W₀ (out, in), or a stack of them (count, out, in).
        k: At most min(out, in).
        version: 1 for adapters made by it, see `DECOMPOSITION_VERSION`.
    """
    weight = weight.detach()
    if version > 1:
        weight = weight.bfloat16()
    U, sigma, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
    if version > 1:
        golden_ratio = (1 + sqrt(5)) / 2
        direction = torch.arange(1, U.shape[-2] + 1, device=U.device, dtype=U.dtype) * golden_ratio % 1 - 0.5
        signed = (direction @ U).unsqueeze(-2)
    else:
        signed = U.gather(-2, U.abs().argmax(dim=-2, keepdim=True))
    signs = torch.where(signed < 0, -1.0, 1.0)
    return Factors((U * signs)[..., :k], sigma[..., :k], (Vh.mT * signs)[..., :k])


class SpectralBases:
    """A (r × m) and B (M × r·n) of one layer with sides m ≤ M, from the singular vectors of its weight.

    Where in = m, the rows of A are the r leading right singular vectors times √m and the columns of B the left ones
    times √M; else the sides change places. B_j has the vectors number j·r to j·r + r - 1, largest singular value first.
    There are m of them: where r does not divide m, the last basis is filled up with the leading ones again. (Columns of
    zeros would leave trained numbers dead.)

    By the factors √m and √M every row of A and every column of B has mean square 1, and the entries of ΔW have exactly
    the mean square that bases of unit variance give them in expectation, g²·n·r·δ² where all |γ| are δ: as B_j and B_j'
    are orthogonal, ‖ΔW‖² = g²·M·Σ_jki A_ki² γ_ji² = g²·M·m·n·r·δ². So g and alpha mean what they mean for the others.

    Entries are rounded to 8 significant bits, below 2⁻¹⁷ to multiples of 2⁻²⁴: exact in bfloat16 and float16, so the
    bases are the same numbers in every dtype, as those of the other families. The pair is held once, in the dtype last
    asked for, M·n·r + r·m numbers: as much as the weight and A.

    Args:
        weight: W₀ (out, in), with no update in it; of a stack (count, out, in) every matrix has bases of its own.
        r: Basis rank, at most m.
        version: Of the decomposition.
    """

    def __init__(self, weight: Tensor, r: int, version: int = DECOMPOSITION_VERSION) -> None:
        small = min(weight.shape[-2:])
        # A first use inside inference_mode must not make the pair unusable for training.
        with torch.inference_mode(mode=False), torch.no_grad():
            U, _, V = decompose(weight, small, version)
            on_large, on_small = (U, V) if weight.shape[-1] == small else (V, U)
            # Column k·n + j of B is column k of B_j.
            first = torch.arange(0, small, r, device=weight.device)
            order = (torch.arange(r, device=weight.device)[:, None] + first).flatten() % small
            unit = sqrt(small) * on_small[..., :r].mT, sqrt(on_large.shape[-2]) * on_large[..., order]
            self._pair = DenseForm(*(part.bfloat16().half().bfloat16().contiguous() for part in unit))

    def scale(self, r: int) -> float:  # noqa: ARG002 - one signature for all families
        """The entries have unit variance."""
        return 1.0

    def form(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> DenseForm:  # noqa: ARG002
        """A and B, with the stack before them, on a device and in a dtype; the shape is the layer's."""
        pair = self._pair
        if pair.A.device != device or pair.dtype != dtype:
            pair = cast_tensors(pair, dtype, device)
            if not torch.compiler.is_compiling():
                self._pair = pair
        return pair

    def stored_bytes(self) -> int:
        """Bytes held now."""
        return sum(t.numel() * t.element_size() for t in self._pair)
