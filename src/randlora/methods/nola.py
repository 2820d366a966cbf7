"""NOLA: LoRA's two matrices as linear combinations of random ones.

Koohpayegani et al., "NOLA: Compressing LoRA using Linear Combination of Random Basis", ICLR 2024.
"""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from randlora.adapter import AdapterLayer, AdapterTuner
from randlora.adapter_config import AdapterConfig, check_count, check_positive, check_seed
from randlora.bases.random_vectors import RandomVectors, random_vectors
from randlora.methods.catalogue import Method, Shown
from randlora.methods.combination import combine

_STREAM_A, _STREAM_B = 2, 3  # 0 and 1 are the dense bases'


@dataclass
class NolaConfig(AdapterConfig):
    """Configuration of a NOLA adapter: ΔW = (alpha/r)·B·A, A = Σ α_i A_i, B = Σ β_i B_i.

    It trains 2·num_bases numbers per layer, whatever the layer's size. The A_i and B_i come from the seed and are
    shared by all layers. α starts so that A is as large as LoRA's, β at 0. The authors train with learning rates of
    about 0.1.

    Attributes:
        r: Rank of ΔW. Default 8.
        alpha: ΔW is multiplied by alpha/r. Default 1, the authors'.
        num_bases: k = l, the number of random matrices for A and for B. Default 1024, the authors'.
        seed: Seed of the random matrices, 0 ≤ seed < 2⁶³. Default 0.

    Raises:
        ConfigError: A value is out of range.
    """

    type_name: ClassVar[str] = "RANDLORA_NOLA"
    prefix: ClassVar[str] = "nola_"

    r: int = 8
    alpha: float = 1.0
    num_bases: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("r", self.r)
        check_positive("alpha", self.alpha)
        check_count("num_bases", self.num_bases)
        check_seed(self.seed)


class NolaLayer(AdapterLayer):
    """A layer with NOLA adapters.

    Attributes:
        nola_alpha: Adapter name -> α (*stack, num_bases), starts at 1/√in.
        nola_beta: Adapter name -> β (*stack, num_bases), starts at 0.
    """

    adapter_layer_names = ("nola_alpha", "nola_beta")
    other_param_names = (*AdapterLayer.other_param_names, "r", "vectors")

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.r: dict[str, int] = {}
        self.vectors: dict[str, tuple[RandomVectors, RandomVectors]] = {}

    def update_layer(self, adapter_name: str, config: NolaConfig) -> None:
        """Add an adapter, or replace the one of this name."""
        self.r[adapter_name] = config.r
        vectors = random_vectors(config.seed, _STREAM_A), random_vectors(config.seed, _STREAM_B)
        self.vectors[adapter_name] = vectors
        for side, family in zip((self.in_features, self.out_features), vectors, strict=True):
            family.reserve(config.num_bases, side * config.r)
        shape = (*self.stack, config.num_bases)
        start = torch.full(shape, 1 / sqrt(self.in_features)), torch.zeros(shape)
        self.add_adapter(
            adapter_name,
            start,
            config.alpha / config.r,
            dropout=config.dropout,
            inference_mode=config.inference_mode,
        )

    def _draw_bases(self, adapter_name: str, device: torch.device) -> None:
        for vectors in self.vectors[adapter_name]:
            vectors.prepare(device)

    def _factors(self, adapter_name: str) -> tuple[Tensor, Tensor]:
        """A (*stack, r, in) and B (*stack, out, r)."""
        alpha, beta = self.trained(adapter_name)
        vectors_a, vectors_b = self.vectors[adapter_name]
        r = self.r[adapter_name]
        return combine(alpha, vectors_a, (r, self.in_features)), combine(beta, vectors_b, (self.out_features, r))

    def _delta_weight(self, adapter_name: str) -> Tensor:
        A, B = self._factors(adapter_name)
        return self.scaling[adapter_name] * B @ A

    def product(self, adapter_name: str, x: Tensor) -> Tensor:
        """See `AdapterLayer`; the two factors one after the other."""
        A, B = self._factors(adapter_name)
        return (x @ A.to(x.dtype).T) @ (self.scaling[adapter_name] * B).to(x.dtype).T

    def rows(self, adapter_name: str, index: Tensor) -> Tensor:
        """See `AdapterLayer`; rows of B times A."""
        A, B = self._factors(adapter_name)
        return self.scaling[adapter_name] * F.embedding(index, B) @ A


class NolaTuner(AdapterTuner):
    """Puts NOLA adapters into a model."""

    prefix = NolaConfig.prefix
    tuner_layer_cls = NolaLayer


METHOD = Method(
    name="nola",
    config=NolaConfig,
    tuner=NolaTuner,
    equation="(α/r)·(Σ_i β_i·B_i)·(Σ_i α_i·A_i)",
    trained=lambda config, *_: 2 * config.num_bases,
    rank=lambda config, out, inner: min(out, inner, config.r),
    shown=(Shown("nola r=1, 1024 bases", {"r": 1, "num_bases": 1024}, paper=0.004),),
)
