"""PRANC: ΔW as a linear combination of random matrices of its own size.

Nooralinejad et al., "PRANC: Pseudo RAndom Networks for Compacting deep models", ICCV 2023. The paper makes whole
networks of it; here, as in the comparisons of NOLA and RandLoRA, it makes the update of each layer.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from randlora.adapter import AdapterLayer, AdapterTuner
from randlora.adapter_config import AdapterConfig, check_count, check_seed
from randlora.bases.random_vectors import RandomVectors, random_vectors
from randlora.methods.catalogue import Method, Shown
from randlora.methods.combination import combine

_STREAM = 4


@dataclass
class PrancConfig(AdapterConfig):
    """Configuration of a PRANC adapter: ΔW = (1/√k) Σ α_i P_i, with random P_i of full rank.

    It trains num_bases numbers per layer. The P_i come from the seed and are shared by all layers. A step costs two
    passes over num_bases matrices of the size of each layer; above 2²⁹ entries in the largest they are drawn anew
    every time.

    Attributes:
        num_bases: k, the number of random matrices. Default 256.
        seed: Seed of the random matrices, 0 ≤ seed < 2⁶³. Default 0.

    Raises:
        ConfigError: A value is out of range.
    """

    type_name: ClassVar[str] = "RANDLORA_PRANC"
    prefix: ClassVar[str] = "pranc_"

    num_bases: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_bases", self.num_bases)
        check_seed(self.seed)


class PrancLayer(AdapterLayer):
    """A layer with PRANC adapters.

    Attributes:
        pranc_alpha: Adapter name -> α (*stack, num_bases), starts at 0.
    """

    adapter_layer_names = ("pranc_alpha",)
    other_param_names = (*AdapterLayer.other_param_names, "vectors")

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.vectors: dict[str, RandomVectors] = {}

    def update_layer(self, adapter_name: str, config: PrancConfig) -> None:
        """Add an adapter, or replace the one of this name."""
        vectors = self.vectors[adapter_name] = random_vectors(config.seed, _STREAM)
        vectors.reserve(config.num_bases, self.in_features * self.out_features)
        start = (torch.zeros(*self.stack, config.num_bases),)
        self.add_adapter(adapter_name, start, 1.0, dropout=config.dropout, inference_mode=config.inference_mode)

    def _draw_bases(self, adapter_name: str, device: torch.device) -> None:
        self.vectors[adapter_name].prepare(device)

    def _delta_weight(self, adapter_name: str) -> Tensor:
        (alpha,) = self.trained(adapter_name)
        alpha = self.scaling[adapter_name] * alpha
        return combine(alpha, self.vectors[adapter_name], (self.out_features, self.in_features))


class PrancTuner(AdapterTuner):
    """Puts PRANC adapters into a model."""

    prefix = PrancConfig.prefix
    tuner_layer_cls = PrancLayer


METHOD = Method(
    name="pranc",
    config=PrancConfig,
    tuner=PrancTuner,
    equation="Σ_i α_i·W_i, W_i random",
    trained=lambda config, *_: config.num_bases,
    rank=lambda _, out, inner: min(out, inner),
    shown=(Shown("pranc, 256 bases"),),
)
