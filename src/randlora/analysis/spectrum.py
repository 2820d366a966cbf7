"""The singular values of a matrix and what they say: ranks, energies, bounds where not all of them are known."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from randlora.formats.export import truncated_svd

EXACT_SIDE = 2048
"""Up to this smaller side all singular values are computed, in some ten seconds at most."""
SKETCH = 256
"""Singular values that a randomized decomposition looks for on larger matrices."""
_DOUBLE_SIDE = 1024
_POWER_STEPS, _OVERSAMPLING, _RESIDUAL_STEPS, _SEED = 4, 32, 20, 0


@dataclass(frozen=True)
class Spectrum:
    """Singular values σ₁ ≥ σ₂ ≥ … of a matrix: all of them, or the leading ones as a randomized sketch finds them.

    A sketch gives σ̂ᵢ ≤ σᵢ. What it leaves over is known: its energy exactly (`missed`), its spectral norm (`residual`)
    by power iteration. So every rank and energy has bounds, which coincide where the spectrum is exact.

    Attributes:
        values: (k,) in float64, falling.
        total: ‖·‖²_F, the energy.
        missed: Energy that is not in `values`; 0 where all are known.
        residual: Estimate of the spectral norm of what is missed; |σᵢ − σ̂ᵢ| ≤ √(σ̂ᵢ² + residual²) − σ̂ᵢ.
        side: The smaller side of the matrix, its largest possible rank.
    """

    values: Float[Tensor, " k"]
    total: float
    missed: float
    residual: float
    side: int

    @property
    def exact(self) -> bool:
        """Whether all singular values are known."""
        return len(self.values) == self.side

    @property
    def error(self) -> float:
        """Largest possible error of a singular value, as a share of the largest one; 0 where the spectrum is exact."""
        if self.exact or not self.total:
            return 0.0
        last = float(self.values[-1])
        return (math.hypot(last, self.residual) - last) / float(self.values[0])

    @property
    def stable_rank(self) -> float:
        """‖·‖²_F / σ₁²; 0 for a matrix of zeros."""
        return self.total / float(self.values[0]) ** 2 if self.total else 0.0

    @property
    def effective_rank(self) -> float:
        """The exponential of the entropy of σᵢ / Σσ (Roy and Vetterli, 2007); 0 for a matrix of zeros.

        With a sketch the missed energy is taken as spread evenly, which gives an upper bound.
        """
        if not self.total:
            return 0.0
        shares = self._padded.sqrt()
        shares = shares[shares > 0] / shares.sum()
        return math.exp(-float((shares * shares.log()).sum()))

    @cached_property
    def _padded(self) -> Tensor:
        """Squares of all singular values; what is missed, spread evenly."""
        rest = self.side - len(self.values)
        tail = torch.full((rest,), self.missed / rest if rest else 0.0, dtype=torch.float64)
        return torch.cat([self.values**2, tail])

    def energy(self, rank: int) -> float:
        """Energy of the nearest matrix of a rank, at least; with an exact spectrum, exactly.

        The tail falls, so its leading part holds no less than an even one would.
        """
        return min(self.total, float(self._padded[:rank].sum()))

    def rank_for(self, share: float) -> tuple[int, int]:
        """The smallest rank whose nearest matrix holds a share of the energy: bounds from below and above.

        Args:
            share: From 0 to 1.
        """
        if not self.total:
            return 0, 0
        wanted = share * self.total * (1 - 1e-12)  # a sum of squares is rounded
        known = torch.cumsum(self._padded, 0)
        most = _first(known, wanted)
        if self.exact:
            return most, most
        steps = torch.arange(1, self.side + 1, dtype=torch.float64)
        return _first(known + torch.clamp(steps * self.residual**2, max=self.missed), wanted), most


def _first(growing: Tensor, wanted: float) -> int:
    """How many of the leading sums it takes to reach a value."""
    reached = (growing >= wanted).nonzero()
    return int(reached[0]) + 1 if len(reached) else len(growing)


@torch.no_grad()
def spectrum_of(matrix: Float[Tensor, "rows columns"], exact_side: int = EXACT_SIDE, sketch: int = SKETCH) -> Spectrum:
    """The spectrum of a matrix; the same for the same matrix.

    Args:
        matrix: In float32 or float64.
        exact_side: Up to this smaller side all singular values are computed: in float64 up to 1,024, then in float32.
        sketch: How many are looked for on larger ones (Halko, Martinsson and Tropp, 2011).
    """
    side = min(matrix.shape)
    total = float(matrix.double().square().sum())
    if side <= exact_side or sketch + _OVERSAMPLING >= side:
        exact = matrix.double() if side <= _DOUBLE_SIDE else matrix
        values = torch.linalg.svdvals(exact).double()
        return Spectrum(values, float(values.square().sum()), 0.0, 0.0, side)
    generator = torch.Generator(matrix.device).manual_seed(_SEED)
    size = (matrix.shape[1], sketch + _OVERSAMPLING)
    probes = torch.randn(size, generator=generator, device=matrix.device, dtype=matrix.dtype)
    basis = torch.linalg.qr(matrix @ probes).Q
    for _ in range(_POWER_STEPS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    values = torch.linalg.svdvals(basis.T @ matrix).double()
    missed = max(0.0, total - float(values.square().sum()))
    return Spectrum(values, total, missed, min(_residual(matrix, basis, generator), math.sqrt(missed)), side)


def _residual(matrix: Tensor, basis: Tensor, generator: torch.Generator) -> float:
    """‖A − QQᵀA‖₂ by power iteration: an estimate, from below."""
    vector = torch.randn(matrix.shape[1], generator=generator, device=matrix.device, dtype=matrix.dtype)
    norm = 0.0
    for _ in range(_RESIDUAL_STEPS):
        vector = vector / vector.norm().clamp(min=torch.finfo(vector.dtype).tiny)
        image = matrix @ vector
        image = image - basis @ (basis.T @ image)
        norm = float(image.norm())
        vector = matrix.T @ image  # image is orthogonal to the basis already
    return norm


@dataclass(frozen=True)
class Alignment:
    """How much of ΔW's energy lies in the leading singular directions of W₀, from 0 to 1.

    Attributes:
        left: ‖U_kᵀ·ΔW‖² / ‖ΔW‖²; k/out is what a random ΔW has.
        right: ‖ΔW·V_k‖² / ‖ΔW‖²; by chance k/in.
        both: ‖U_kᵀ·ΔW·V_k‖² / ‖ΔW‖²; by chance their product.
        directions: k.
    """

    left: float
    right: float
    both: float
    directions: int


@torch.no_grad()
def alignment(delta: Float[Tensor, "out in"], weight: Float[Tensor, "out in"], directions: int) -> Alignment:
    """The share of ΔW in the `directions` leading left and right singular vectors of W₀; 0 for ΔW = 0."""
    k = min(directions, *weight.shape)
    total = float(delta.double().square().sum())
    if not total:
        return Alignment(0.0, 0.0, 0.0, k)
    U, _, V = truncated_svd(weight.to(torch.promote_types(weight.dtype, torch.float32)), k)
    left = U.double().T @ delta.double()
    both = left @ V.double()
    right = delta.double() @ V.double()
    left_share, right_share, both_share = (float(part.square().sum()) / total for part in (left, right, both))
    return Alignment(left_share, right_share, both_share, k)
