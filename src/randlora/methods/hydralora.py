"""HydraLoRA: one matrix A, several B, mixed for each token by a router.

Tian et al., "HydraLoRA: An Asymmetric LoRA Architecture for Efficient Fine-Tuning", NeurIPS 2024.
"""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor, nn

from randlora.adapter import AdapterLayer, AdapterTuner
from randlora.adapter.kinds import LinearKind, find_kind
from randlora.adapter.placement import compute_dtype
from randlora.adapter_config import AdapterConfig, check_count, check_positive
from randlora.errors import RandLoraError, UpdateError
from randlora.methods.catalogue import HIGHEST_LORA_RATE, Method, Shown


@dataclass
class HydraLoraConfig(AdapterConfig):
    """Configuration of a HydraLoRA adapter: y = W₀x + (alpha/r)·Σ_i ω_i·B_i·A·x, ω = softmax(W_g·x).

    With N heads it trains r·in + N·r·out + N·in numbers per layer. The update depends on the input, so that it
    cannot be merged. Dropout acts on the input of A, not on the router's.

    Attributes:
        r: Rank of each head. Default 4, the authors'.
        alpha: The update is multiplied by alpha/r. Default 32, the authors'.
        num_heads: N, the number of matrices B. Default 4, the authors'.

    Raises:
        ConfigError: A value is out of range.

    Example:
        >>> import peft, torch
        >>> from randlora.methods import HydraLoraConfig
        >>> config = HydraLoraConfig(target_modules=["0"], num_heads=3)
        >>> model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(64, 48)), config)
        >>> layer = model.base_model.model[0]
        >>> [tuple(tensor.shape) for tensor in layer.trained("default")]  # A, the B_i, W_g
        [(4, 64), (3, 48, 4), (3, 64)]
    """

    type_name: ClassVar[str] = "RANDLORA_HYDRALORA"
    prefix: ClassVar[str] = "hydralora_"

    r: int = 4
    alpha: float = 32.0
    num_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("r", self.r)
        check_positive("alpha", self.alpha)
        check_count("num_heads", self.num_heads)


class HydraLoraLayer(AdapterLayer):
    """A linear layer with HydraLoRA adapters.

    Attributes:
        hydralora_A: Adapter name -> A (r, in), starts uniform in ±1/√in.
        hydralora_B: Adapter name -> the B_i (N, out, r), start at 0.
        hydralora_router: Adapter name -> W_g (N, in), starts uniform in ±1/√in.
    """

    adapter_layer_names = ("hydralora_A", "hydralora_B", "hydralora_router")

    def update_layer(self, adapter_name: str, config: HydraLoraConfig) -> None:
        """Add an adapter, or replace the one of this name."""
        bound = 1 / sqrt(self.in_features)
        A = torch.empty(config.r, self.in_features).uniform_(-bound, bound)
        B = torch.zeros(config.num_heads, self.out_features, config.r)
        router = torch.empty(config.num_heads, self.in_features).uniform_(-bound, bound)
        self.add_adapter(
            adapter_name,
            (A, B, router),
            config.alpha / config.r,
            dropout=config.dropout,
            inference_mode=config.inference_mode,
        )

    @classmethod
    def refusal(cls, layer: nn.Module) -> str:
        """See `AdapterLayer`; without a ΔW there is nothing that another kind of layer could be run with."""
        if not isinstance(find_kind(layer), LinearKind):
            return "a linear layer (the router reads the layer's input, so that there is no ΔW)"
        return super().refusal(layer)

    def update(self, adapter_name: str, x: Tensor) -> Tensor:
        """See `AdapterLayer`."""
        A, B, router = self.trained(adapter_name)
        dropout: nn.Module = self.adapter_dropout[adapter_name]
        x = x.to(compute_dtype(x, self.get_base_layer()))
        with torch.autocast(x.device.type, enabled=False):
            weights = torch.softmax((x @ router.to(x.dtype).T).to(A.dtype), dim=-1).to(x.dtype)
            hidden = self.scaling[adapter_name] * (dropout(x) @ A.to(x.dtype).T)
            # Σ_i ω_i B_i h as one product of the N·r numbers ω_i·h_k with all heads side by side.
            mixed = (weights.unsqueeze(-1) * hidden.unsqueeze(-2)).flatten(-2)
            return mixed @ B.to(x.dtype).transpose(1, 2).flatten(0, 1)

    def merge_refusal(self, adapter_names: list[str] | None, *, exact: bool) -> RandLoraError:  # noqa: ARG002
        """The update is no weight."""
        return UpdateError(
            "HydraLoRA",
            expected="a method whose update is a weight",
            got="one whose router mixes the heads by the input",
            hint="it cannot be merged or converted; keep the adapter beside the model",
        )

    def _delta_weight(self, adapter_name: str) -> Tensor:
        raise self.merge_refusal([adapter_name], exact=False)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:  # noqa: ARG002 - PEFT's signature
        """The update is no weight."""
        return False


class HydraLoraTuner(AdapterTuner):
    """Puts HydraLoRA adapters into a model."""

    prefix = HydraLoraConfig.prefix
    tuner_layer_cls = HydraLoraLayer


METHOD = Method(
    name="hydralora",
    config=HydraLoraConfig,
    tuner=HydraLoraTuner,
    equation="y += (α/r)·Σ_h ω_h(x)·B_h·A·x",
    trained=lambda config, out, inner: config.r * (inner + config.num_heads * out) + config.num_heads * inner,
    rank=None,
    shown=(Shown("hydralora r=4, 4 heads"),),
    highest_rate=HIGHEST_LORA_RATE,
)
