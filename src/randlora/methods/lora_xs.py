"""LoRA-XS: a small trained matrix between the largest singular vectors of the base weight.

Bałazy et al., "LoRA-XS: Low-Rank Adaptation with Extremely Small Number of Parameters", ECAI 2025.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from randlora.adapter_config import check_count, check_positive
from randlora.methods.catalogue import Method, Shown
from randlora.methods.svd import SvdConfig, SvdLayer, SvdTuner

_START_DEVIATION = 1e-5  # of R, the paper's


@dataclass
class LoraXsConfig(SvdConfig):
    """Configuration of a LoRA-XS adapter: ΔW = (alpha/r)·U_r·R·Σ_r·V_rᵀ with W₀ = U·Σ·Vᵀ, W₀ of (out, in).

    It trains r² numbers per layer. The paper writes x·W with W (in, out), where the singular values stand beside
    the input too. Loading needs the base weights of the training.

    Attributes:
        r: Number of singular vectors, at most the smaller side of each layer. Default 16.
        alpha: ΔW is multiplied by alpha/r. Default 16, the authors'.

    Raises:
        ConfigError: A value is out of range.
    """

    type_name: ClassVar[str] = "RANDLORA_LORA_XS"
    prefix: ClassVar[str] = "loraxs_"

    r: int = 16
    alpha: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("r", self.r)
        check_positive("alpha", self.alpha)


class LoraXsLayer(SvdLayer):
    """A layer with LoRA-XS adapters.

    Attributes:
        loraxs_R: Adapter name -> R (*stack, r, r), starts with entries of N(0, 1e-5²).
    """

    adapter_layer_names = ("loraxs_R",)

    def update_layer(self, adapter_name: str, config: LoraXsConfig) -> None:
        """Add an adapter, or replace the one of this name."""
        scaling = config.alpha / config.r
        self.decompose_base(adapter_name, config.r, config.decomposition)
        start = (_START_DEVIATION * torch.randn(*self.stack, config.r, config.r),)
        self.add_adapter(adapter_name, start, scaling, dropout=config.dropout, inference_mode=config.inference_mode)

    def _delta_weight(self, adapter_name: str) -> Tensor:
        (R,) = self.trained(adapter_name)
        U, sigma, V = self.factors_like(adapter_name, R)
        return self.scaling[adapter_name] * U @ R @ (V * sigma[..., None, :]).mT

    def rows(self, adapter_name: str, index: Tensor) -> Tensor:
        """See `AdapterLayer`; rows of U times the rest."""
        (R,) = self.trained(adapter_name)
        _, sigma, V = self.factors[adapter_name]
        right = (V.to(R.device, R.dtype) * sigma.to(R.device, R.dtype)).T
        return self.left_rows(adapter_name, index, R) @ (self.scaling[adapter_name] * R @ right)

    def product(self, adapter_name: str, x: Tensor) -> Tensor:
        """See `AdapterLayer`; the factors one after the other."""
        (R,) = self.trained(adapter_name)
        U, sigma, V = self.factors_like(adapter_name, x)
        return (x @ (V * sigma)) @ (self.scaling[adapter_name] * R).to(x.dtype).T @ U.T


class LoraXsTuner(SvdTuner):
    """Puts LoRA-XS adapters into a model."""

    prefix = LoraXsConfig.prefix
    tuner_layer_cls = LoraXsLayer


METHOD = Method(
    name="lora_xs",
    config=LoraXsConfig,
    tuner=LoraXsTuner,
    equation="(α/r)·U_r·R·Σ_r·V_rᵀ of W₀'s singular vectors",
    trained=lambda config, *_: config.r**2,
    rank=lambda config, out, inner: min(out, inner, config.r),
    shown=(Shown("lora_xs r=16"),),
)
