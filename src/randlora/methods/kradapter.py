"""KRAdapter: the column-wise Khatri-Rao product of two trained matrices, of full rank.

Albert et al., "Towards Higher Effective Rank in Parameter-efficient Fine-tuning using Khatri-Rao Product", ICCV 2025.
"""

from dataclasses import dataclass
from math import isqrt
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from randlora.adapter import AdapterLayer, AdapterTuner
from randlora.adapter_config import AdapterConfig, check_positive
from randlora.methods.catalogue import Method, Shown


@dataclass
class KRAdapterConfig(AdapterConfig):
    """Configuration of a KRAdapter: row i of ΔW's smaller side is alpha times b_i ⊗ a_i, cut to the larger side.

    With sides m ≤ M it trains m·(k + ⌈M/k⌉) numbers per layer, k = ⌊√M⌋: about 2·m·√M, as many as a LoRA of rank
    2·m·√M/(m + M). There is no rank to choose. A step forms ΔW, which costs as much memory as the layer's weight; on an
    embedding it forms the rows looked up.

    Attributes:
        alpha: ΔW is multiplied by alpha. Default 1, the authors'.

    Raises:
        ConfigError: A value is out of range.
    """

    type_name: ClassVar[str] = "RANDLORA_KRADAPTER"
    prefix: ClassVar[str] = "kradapter_"

    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)


class KRAdapterLayer(AdapterLayer):
    """A layer with KRAdapters.

    Attributes:
        kradapter_A: Adapter name -> the a_i (*stack, m, ⌈M/k⌉), start uniform in ±1/√⌈M/k⌉.
        kradapter_B: Adapter name -> the b_i (*stack, m, k), start at 0.
    """

    adapter_layer_names = ("kradapter_A", "kradapter_B")

    def update_layer(self, adapter_name: str, config: KRAdapterConfig) -> None:
        """Add an adapter, or replace the one of this name."""
        small, large = sorted((self.in_features, self.out_features))
        k, width = _widths(large)
        A = torch.empty(*self.stack, small, width).uniform_(-(width**-0.5), width**-0.5)
        start = A, torch.zeros(*self.stack, small, k)
        self.add_adapter(
            adapter_name, start, config.alpha, dropout=config.dropout, inference_mode=config.inference_mode
        )

    def _delta_weight(self, adapter_name: str) -> Tensor:
        A, B = self.trained(adapter_name)
        rows = self._products(self.scaling[adapter_name] * B, A)
        return rows.mT if self.in_features < self.out_features else rows

    def rows(self, adapter_name: str, index: Tensor) -> Tensor:
        """See `AdapterLayer`; entry e of row i on the smaller side is b_i at e // ⌈M/k⌉ times a_i at the rest."""
        A, B = self.trained(adapter_name)
        B = self.scaling[adapter_name] * B
        if self.in_features >= self.out_features:
            return self._products(B[index], A[index])
        width = A.shape[-1]
        return F.embedding(index // width, B.T) * F.embedding(index % width, A.T)

    def _products(self, B: Tensor, A: Tensor) -> Tensor:
        """The b_i ⊗ a_i, cut to the larger side."""
        large = max(self.in_features, self.out_features)
        return (B[..., :, None] * A[..., None, :]).flatten(-2)[..., :large]


class KRAdapterTuner(AdapterTuner):
    """Puts KRAdapters into a model."""

    prefix = KRAdapterConfig.prefix
    tuner_layer_cls = KRAdapterLayer


def _widths(large: int) -> tuple[int, int]:
    """K = ⌊√M⌋ and ⌈M/k⌉."""
    k = isqrt(large)
    return k, -(-large // k)


def _trained(_: Any, out: int, inner: int) -> int:
    return min(out, inner) * sum(_widths(max(out, inner)))


METHOD = Method(
    name="kradapter",
    config=KRAdapterConfig,
    tuner=KRAdapterTuner,
    equation="α·(B ⊙ A), column by column b_i ⊗ a_i",
    trained=_trained,
    rank=lambda _, out, inner: min(out, inner),
    shown=(Shown("kradapter"),),
)
