"""LoRA and RandLoRA on the same layer, trained together.

Named as future work in Albert et al., "RandLoRA: Full-rank parameter-efficient fine-tuning of large models", ICLR 2025
(limitations): a free low-rank part beside one of full rank.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from randlora.adapter_config import check_count, check_positive
from randlora.errors import ConfigError
from randlora.methods.catalogue import HIGHEST_LORA_RATE, Method, Shown
from randlora.methods.randlora import RandLoraConfig, RandLoraLayer, RandLoraTuner
from randlora.methods.randlora.method import highest_rank


@dataclass
class HybridConfig(RandLoraConfig):
    """Configuration of a hybrid adapter: ΔW = s·B·A + g · Σ_j B_j Λ_j A_R Γ_j, s = lora_alpha/lora_r.

    B (out, lora_r) and A (lora_r, in) are LoRA's, trained and starting with B = 0; the sum is RandLoRA's, with all
    options of `RandLoraConfig` but `bases="peft"`. It trains lora_r·(in + out) + n·r + n·m numbers per linear layer
    with sides m ≤ M, n = ⌈m/r⌉; `fit_rank` finds the r for a budget at a given lora_r.

    Attributes:
        r: Basis rank of the RandLoRA part. Default 32: about as many numbers as a LoRA of rank m/64.
        alpha: Size of the RandLoRA part. Default 8, see `RandLoraConfig`.
        lora_r: Rank of the LoRA part. Default 4.
        lora_alpha: The LoRA part is multiplied by lora_alpha/lora_r. Default 2·lora_r.

    Raises:
        ConfigError: A value is out of range or does not go with another.

    Example:
        >>> import peft, torch
        >>> from randlora.methods import HybridConfig
        >>> config = HybridConfig(target_modules=["0"], r=16, lora_r=2)
        >>> model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(64, 48)), config)
        >>> layer = model.base_model.model[0]
        >>> [tuple(tensor.shape) for tensor in layer.trained("default")]  # λ, γ, A, B
        [(3, 16), (3, 48), (2, 64), (48, 2)]
    """

    type_name: ClassVar[str] = "RANDLORA_HYBRID"

    r: int = 32
    lora_r: int = 4
    lora_alpha: float | None = None  # becomes 2·lora_r

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bases == "peft":
            hint = "they are there to read and write PEFT's checkpoints"
            raise ConfigError("bases", expected="other than 'peft' in a hybrid adapter", hint=hint)
        check_count("lora_r", self.lora_r)
        if self.lora_alpha is None:
            self.lora_alpha = 2.0 * self.lora_r
        check_positive("lora_alpha", self.lora_alpha)

    def trained_numbers(self, shape: tuple[int, int], r: int) -> int:
        """RandLoRA's and LoRA's; see `RandLoraConfig`."""
        return super().trained_numbers(shape, r) + self.lora_r * sum(shape)

    def describe(self) -> dict[str, str]:
        """See `AdapterConfig`."""
        facts = super().describe()
        facts["method"] = "LoRA and RandLoRA together"
        own = "s·B·A + g · Σⱼ Bⱼ Λⱼ A Γⱼ, s = lora_alpha/lora_r, g"
        facts["update"] = facts["update"].replace("g · Σⱼ Bⱼ Λⱼ A Γⱼ, g", own)
        return facts | {"lora_r": str(self.lora_r), "lora_alpha": f"{self.lora_alpha:g}"}


class HybridLayer(RandLoraLayer):
    """A layer with hybrid adapters: RandLoRA's layer, and a product of two trained matrices.

    Attributes:
        randlora_lora_A: Adapter name -> A (*stack, lora_r, in), starts uniform in ±1/√in.
        randlora_lora_B: Adapter name -> B (*stack, out, lora_r), starts at 0.
        lora_scaling: Adapter name -> s.
    """

    adapter_layer_names = (*RandLoraLayer.adapter_layer_names, "randlora_lora_A", "randlora_lora_B")
    other_param_names = (*RandLoraLayer.other_param_names, "lora_scaling")

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.lora_scaling: dict[str, float] = {}

    def update_layer(self, adapter_name: str, config: Any, *args: Any, **options: Any) -> None:
        """Add an adapter, or replace the one of this name; the arguments are RandLoRA's, of a `HybridConfig`."""
        self.lora_scaling[adapter_name] = config.lora_alpha / config.lora_r
        super().update_layer(adapter_name, config, *args, **options)

    def _start(self, config: Any, rows: int, r: int) -> tuple[Tensor, ...]:
        bound = self.in_features**-0.5
        A = torch.empty(*self.stack, config.lora_r, self.in_features).uniform_(-bound, bound)
        draw = torch.zeros if config.init_weights else torch.randn
        return (*super()._start(config, rows, r), A, draw(*self.stack, self.out_features, config.lora_r))

    def _beside(self, adapter_name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A, and B times s and the scale that is set for the whole update."""
        _, _, A, B = self.trained(adapter_name)
        scale = self.scaling[adapter_name] / self.initial_scaling[adapter_name]
        return A.to(dtype), (scale * self.lora_scaling[adapter_name] * B).to(dtype)

    def _delta_weight(self, adapter_name: str) -> Tensor:
        delta = super()._delta_weight(adapter_name)
        A, B = self._beside(adapter_name, delta.dtype)
        return delta + B @ A

    def product(self, adapter_name: str, x: Tensor) -> Tensor:
        """See `AdapterLayer`; each part as it is cheapest."""
        product = super().product(adapter_name, x)
        if self._by_delta_weight(adapter_name):  # which has both parts
            return product
        A, B = self._beside(adapter_name, x.dtype)
        return product + x @ A.T @ B.T

    def rows(self, adapter_name: str, index: Tensor) -> Tensor:
        """See `AdapterLayer`; each part as it is cheapest."""
        rows = super().rows(adapter_name, index)
        if self._rows_by_delta_weight(adapter_name):  # which has both parts
            return rows
        A, B = self._beside(adapter_name, rows.dtype)
        return rows + F.embedding(index, B) @ A


class HybridTuner(RandLoraTuner):
    """Puts hybrid adapters into a model."""

    tuner_layer_cls = HybridLayer

    def add_weighted_adapter(self, *_args: Any, **_options: Any) -> None:
        """Not for hybrid adapters: a sum of LoRA parts has a higher rank than each.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("adapters", expected="RandLoRA's, to sum them", got="hybrid ones", hint="merge them instead")


METHOD = Method(
    name="hybrid",
    config=HybridConfig,
    tuner=HybridTuner,
    equation="s·B·A + g·Σ_j B_j·Λ_j·A_R·Γ_j",
    trained=lambda config, out, inner: config.trained_numbers((out, inner), config.r),
    rank=lambda config, out, inner: min(out, inner, highest_rank(config, out, inner) + config.lora_r),
    shown=(Shown("hybrid r=60, lora_r=16", {"r": 60, "lora_r": 16}),),
    as_lora=lambda rank: {"lora_r": max(1, rank // 2)},
    highest_rate=HIGHEST_LORA_RATE,
)
