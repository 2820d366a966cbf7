"""SVFT: a sparse trained matrix between all singular vectors of the base weight.

Lingam et al., "SVFT: Parameter-Efficient Fine-Tuning with Singular Vectors", NeurIPS 2024.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from randlora.adapter_config import check_choice, check_seed
from randlora.bases.rng import random_words
from randlora.bases.spectral import Factors
from randlora.errors import ConfigError
from randlora.methods.catalogue import Method, Shown
from randlora.methods.svd import SvdConfig, SvdLayer, SvdTuner

PATTERNS = ("plain", "banded", "random", "top_k")
_STREAM = 5


@dataclass
class SvftConfig(SvdConfig):
    """Configuration of an SVFT adapter: ΔW = U·M·Vᵀ with W₀ = U·Σ·Vᵀ and M sparse, starting at 0.

    With m the smaller side of a layer and d = off_diagonals it trains m numbers (`plain`), else
    m·(2d + 1) - d·(d + 1). U and V are kept in memory in the base weight's dtype, about twice its size on a square
    layer. Loading needs the base weights of the training.

    Attributes:
        pattern: Which entries of M are trained. `plain`: the diagonal. `banded` (default): also d diagonals on
            either side. `random`: as many, anywhere. `top_k`: as many, where |u_iᵀv_j| is largest (of layers that
            are not square, over the leading m coordinates).
        off_diagonals: d; capped at m - 1. Default 2. Not used by `plain`.
        seed: Seed of the `random` pattern, 0 ≤ seed < 2⁶³. Default 0.

    Raises:
        ConfigError: A value is out of range.
    """

    type_name: ClassVar[str] = "RANDLORA_SVFT"
    prefix: ClassVar[str] = "svft_"

    pattern: str = "banded"
    off_diagonals: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("pattern", self.pattern, PATTERNS)
        d = self.off_diagonals
        if isinstance(d, bool) or not isinstance(d, int) or d < 0:
            raise ConfigError("off_diagonals", expected="an integer of 0 or more", got=repr(d))
        check_seed(self.seed)


def trained_positions(config: SvftConfig, factors: Factors) -> Tensor:
    """Which entries of M are trained: sorted positions in M read row by row.

    Args:
        config: Pattern, number of diagonals and seed.
        factors: The layer's singular vectors.

    Returns:
        A row of positions; by `top_k` one for each matrix of a stack.
    """
    m = factors.sigma.shape[-1]
    device = factors.U.device
    d = 0 if config.pattern == "plain" else min(config.off_diagonals, m - 1)
    count = m * (2 * d + 1) - d * (d + 1)
    if config.pattern == "random":
        words = random_words(config.seed, _STREAM, range(m), m, device).flatten()
        # Unique keys, so that equal words do not leave the choice to the device's sort.
        keys = words * m * m + torch.arange(m * m, device=device)
        return keys.topk(count, sorted=False).indices.sort().values
    if config.pattern == "top_k":
        alignment = factors.U[..., :m, :].double().mT @ factors.V[..., :m, :].double()
        return alignment.abs().flatten(-2).topk(count, sorted=False).indices.sort().values
    index = torch.arange(m, device=device)
    return ((index[:, None] - index[None, :]).abs() <= d).flatten().nonzero().flatten()


class SvftLayer(SvdLayer):
    """A layer with SVFT adapters.

    Attributes:
        svft_M: Adapter name -> the trained entries of M (*stack, entries), starting at 0.
        positions: Adapter name -> where they are in M, read row by row (*stack, entries).
    """

    adapter_layer_names = ("svft_M",)
    other_param_names = (*SvdLayer.other_param_names, "positions")

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.positions: dict[str, Tensor] = {}

    def update_layer(self, adapter_name: str, config: SvftConfig) -> None:
        """Add an adapter, or replace the one of this name."""
        factors = self.decompose_base(adapter_name, min(self.in_features, self.out_features), config.decomposition)
        positions = trained_positions(config, factors)
        positions = self.positions[adapter_name] = positions.expand(*self.stack, positions.shape[-1])
        start = (torch.zeros(positions.shape),)
        self.add_adapter(adapter_name, start, 1.0, dropout=config.dropout, inference_mode=config.inference_mode)

    def _matrix(self, adapter_name: str) -> Tensor:
        """M (*stack, m, m) times the scaling, in the dtype of its trained entries."""
        (entries,) = self.trained(adapter_name)
        entries = self.scaling[adapter_name] * entries
        m = min(self.in_features, self.out_features)
        positions = self.positions[adapter_name].to(entries.device)
        return entries.new_zeros(*self.stack, m * m).scatter(-1, positions, entries).unflatten(-1, (m, m))

    def _delta_weight(self, adapter_name: str) -> Tensor:
        M = self._matrix(adapter_name)
        U, _, V = self.factors_like(adapter_name, M)
        return U @ M @ V.mT

    def rows(self, adapter_name: str, index: Tensor) -> Tensor:
        """See `AdapterLayer`; rows of U times the rest."""
        M = self._matrix(adapter_name)
        V = self.factors[adapter_name].V.to(M.device, M.dtype)
        return self.left_rows(adapter_name, index, M) @ (M @ V.T)

    def product(self, adapter_name: str, x: Tensor) -> Tensor:
        """See `AdapterLayer`; the factors one after the other."""
        U, _, V = self.factors_like(adapter_name, x)
        return (x @ V) @ self._matrix(adapter_name).to(x.dtype).T @ U.T


class SvftTuner(SvdTuner):
    """Puts SVFT adapters into a model."""

    prefix = SvftConfig.prefix
    tuner_layer_cls = SvftLayer


def _trained(config: SvftConfig, out: int, inner: int) -> int:
    m = min(out, inner)
    d = 0 if config.pattern == "plain" else min(config.off_diagonals, m - 1)
    return m * (2 * d + 1) - d * (d + 1)


METHOD = Method(
    name="svft",
    config=SvftConfig,
    tuner=SvftTuner,
    equation="U·M·Vᵀ, M sparse",
    trained=_trained,
    rank=lambda _, out, inner: min(out, inner),
    shown=(Shown("svft, banded, 2"),),
)
