"""Spectral RandLoRA: the bases are the singular vectors of the pre-trained weight in place of random ones.

Named as future work in Albert et al., "RandLoRA: Full-rank parameter-efficient fine-tuning of large models", ICLR 2025
(limitations). A method of its own and no family of `RandLoraConfig`: those are drawn from a seed, the same bits
everywhere, and shared by all layers; these belong to one weight.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from randlora.adapter.weights import read_weight
from randlora.adapter_config import check_count, check_positive
from randlora.bases import SpectralBases
from randlora.methods.catalogue import Method, Shown, diagonal_numbers
from randlora.methods.randlora import RandLoraLayer
from randlora.methods.randlora.config import check_strategy
from randlora.methods.randlora.state import balanced_scaling
from randlora.methods.svd import SvdConfig, SvdTuner
from randlora.update import DenseForm


@dataclass
class SpectralConfig(SvdConfig):
    """Configuration of a spectral RandLoRA adapter: ΔW = g · Σ_j B_j Λ_j A Γ_j with W₀'s singular vectors as bases.

    B_j holds the left singular vectors number j·r to j·r + r - 1, A the r leading right ones (in a layer with in > out
    the other way around), with entries of unit variance; see `randlora.bases.SpectralBases`. As RandLoRA it trains
    n·r + n·m numbers per layer with sides m ≤ M, n = ⌈m/r⌉, and starts with λ = 1 and γ = 0. ΔW has rank m, unless the
    r leading vectors on the small side leave some coordinates out altogether: columns of A that are 0, where ΔW is 0.

    The bases are no part of the checkpoint: loading needs the base weights of the training, and decomposes each again
    (O(M·m²) in float64). They take as much memory as the adapted weights once more, M·n·r + r·m numbers per layer in
    the compute dtype.

    Attributes:
        r: Basis rank, at most the smaller side of each layer. Default 16.
        alpha: Size of the update, g = alpha·√r/m^(4/3). Default 8, as for RandLoRA's other bases.
        strategy: How ΔW is applied: `auto` (default), `folded`, `factored` or `reference`, as in `RandLoraConfig`.

    Raises:
        ConfigError: A value is out of range.
    """

    type_name: ClassVar[str] = "RANDLORA_SPECTRAL"
    prefix: ClassVar[str] = "randlora_"

    r: int = 16
    alpha: float = 8.0
    strategy: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("r", self.r, hint="a smaller r trains more numbers")
        check_positive("alpha", self.alpha)
        check_strategy("strategy", self.strategy, self.dropout)


class SpectralLayer(RandLoraLayer):
    """A layer with spectral RandLoRA adapters: λ and γ are RandLoRA's, and so is the arithmetic."""

    def update_layer(self, adapter_name: str, config: SpectralConfig) -> None:  # type: ignore[override] # no options
        """Add an adapter, or replace the one of this name."""
        r, small = config.r, min(self.in_features, self.out_features)
        bases_count = -(-small // r)
        bases = SpectralBases(read_weight(self.get_base_layer()), r, config.decomposition or 1)
        scaling = bases.scale(r) * balanced_scaling(config.alpha, r, small)
        self.set_update(adapter_name, bases, config.strategy, r, bases_count)
        start = torch.ones(*self.stack, bases_count, r), torch.zeros(*self.stack, bases_count, small)
        self.add_adapter(adapter_name, start, scaling, dropout=config.dropout, inference_mode=config.inference_mode)

    def _delta_weight(self, adapter_name: str) -> Tensor:
        if not self.stack:
            return super()._delta_weight(adapter_name)
        lambda_, gamma = self.diagonals(adapter_name)
        form = self.form(adapter_name, lambda_.device, lambda_.dtype)
        parts = zip(*form, lambda_, gamma, strict=True)  # every matrix has bases of its own
        return torch.stack([self._delta_of(adapter_name, DenseForm(A, B), *diagonals) for A, B, *diagonals in parts])


class SpectralTuner(SvdTuner):
    """Puts spectral RandLoRA adapters into a model."""

    prefix = SpectralConfig.prefix
    tuner_layer_cls = SpectralLayer


METHOD = Method(
    name="spectral",
    config=SpectralConfig,
    tuner=SpectralTuner,
    equation="g·Σ_j B_j·Λ_j·A·Γ_j, B_j and A of W₀'s singular vectors",
    trained=diagonal_numbers,
    rank=lambda _, out, inner: min(out, inner),
    shown=(Shown("spectral r=30", {"r": 30}),),
)
