"""RandLoRA-a: the bases are summed before their product, so that ΔW has rank r however many of them there are.

Albert et al., "RandLoRA: Full-rank parameter-efficient fine-tuning of large models", ICLR 2025, § 6.3. The paper's
control: as many trained numbers as RandLoRA, a low rank.
"""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from randlora.adapter import AdapterLayer, AdapterTuner
from randlora.adapter_config import AdapterConfig, check_choice, check_count, check_positive, check_seed
from randlora.bases import DenseBases, dense_bases
from randlora.methods.catalogue import Method, Shown, diagonal_numbers
from randlora.methods.randlora.state import balanced_scaling
from randlora.update import Sizes

_FAMILIES = ("uniform", "normal", "ternary")


@dataclass
class RandLoraAConfig(AdapterConfig):
    """Configuration of a RandLoRA-a adapter: ΔW = g · (Σ_j B_j Λ_j)(Σ_j A_j Γ_j), with an A_j of its own for each j.

    With one A for all bases the second sum would be A times one diagonal. Trained are n·r + n·m numbers per layer,
    n = ⌈m/r⌉, as for RandLoRA; λ starts at 1 and γ at 0.

    Attributes:
        r: Basis rank, and rank of ΔW. Default 16.
        alpha: g = alpha·√(r/n)/m^(4/3), by which a step moves ΔW as far as a step of RandLoRA does. Default 8.
        bases: `uniform` (default), `normal` or `ternary` (s = 2).
        seed: Seed of the bases, 0 ≤ seed < 2⁶³. Default 0.

    Raises:
        ConfigError: A value is out of range.
    """

    type_name: ClassVar[str] = "RANDLORA_A"
    prefix: ClassVar[str] = "randloraa_"

    r: int = 16
    alpha: float = 8.0
    bases: str = "uniform"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("r", self.r, hint="a smaller r trains more numbers")
        check_positive("alpha", self.alpha)
        check_choice("bases", self.bases, _FAMILIES)
        check_seed(self.seed)


class RandLoraALayer(AdapterLayer):
    """A layer with RandLoRA-a adapters.

    Attributes:
        randloraa_lambda: Adapter name -> λ (*stack, n, r), starts at 1.
        randloraa_gamma: Adapter name -> γ (*stack, n, m), starts at 0.
    """

    adapter_layer_names = ("randloraa_lambda", "randloraa_gamma")
    other_param_names = (*AdapterLayer.other_param_names, "shared_bases")
    randloraa_lambda: nn.ModuleDict

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.shared_bases: dict[str, DenseBases] = {}

    def update_layer(self, adapter_name: str, config: RandLoraAConfig) -> None:
        """Add an adapter, or replace the one of this name."""
        sizes = self._sizes(config.r)
        bases = dense_bases(config.bases, config.seed, separate=True)  # type: ignore[arg-type]  # checked
        bases.reserve(sizes)
        self.shared_bases[adapter_name] = bases
        g = balanced_scaling(config.alpha, config.r / sizes.num_bases, sizes.small)
        rows = (*self.stack, sizes.num_bases)
        start = torch.ones(*rows, config.r), torch.zeros(*rows, sizes.small)
        self.add_adapter(
            adapter_name,
            start,
            g * bases.scale(config.r),
            dropout=config.dropout,
            inference_mode=config.inference_mode,
        )

    def _sizes(self, r: int) -> Sizes:
        small, large = sorted((self.in_features, self.out_features))
        return Sizes(r, -(-small // r), small, large)

    def _bases_pair(self, adapter_name: str, lambda_: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        form = self.shared_bases[adapter_name].form(self._sizes(lambda_.shape[-1]), device, lambda_.dtype)
        return form.A, form.B

    def _draw_bases(self, adapter_name: str, device: torch.device) -> None:
        self._bases_pair(adapter_name, cast("Tensor", self.randloraa_lambda[adapter_name].weight), device)

    def _factors(self, adapter_name: str) -> tuple[Tensor, Tensor]:
        """Σ_j B_j Λ_j (*stack, M, r) with g, and Σ_j A_j Γ_j (*stack, r, m)."""
        lambda_, gamma = self.trained(adapter_name)
        r = lambda_.shape[-1]
        A, B = self._bases_pair(adapter_name, lambda_, gamma.device)
        summed_b = torch.einsum("Mkj,...jk->...Mk", B.unflatten(1, (r, -1)), self.scaling[adapter_name] * lambda_)
        return summed_b, torch.einsum("kjm,...jm->...km", A.unflatten(0, (r, -1)), gamma)

    def _delta_weight(self, adapter_name: str) -> Tensor:
        B, A = self._factors(adapter_name)
        return B @ A if self.in_features <= self.out_features else (B @ A).mT

    def rows(self, adapter_name: str, index: Tensor) -> Tensor:
        """See `AdapterLayer`; rows of the left factor times the right one."""
        B, A = self._factors(adapter_name)
        left, right = (B, A) if self.in_features <= self.out_features else (A.T, B.T)
        return F.embedding(index, left) @ right

    def product(self, adapter_name: str, x: Tensor) -> Tensor:
        """See `AdapterLayer`; the two factors one after the other."""
        B, A = (factor.to(x.dtype) for factor in self._factors(adapter_name))
        return x @ A.T @ B.T if self.in_features <= self.out_features else x @ B @ A


class RandLoraATuner(AdapterTuner):
    """Puts RandLoRA-a adapters into a model."""

    prefix = RandLoraAConfig.prefix
    tuner_layer_cls = RandLoraALayer


METHOD = Method(
    name="randlora_a",
    config=RandLoraAConfig,
    tuner=RandLoraATuner,
    equation="g·(Σ_j B_j·Λ_j)·(Σ_j A_j·Γ_j)",
    trained=diagonal_numbers,
    rank=lambda config, out, inner: min(out, inner, config.r),
    shown=(Shown("randlora_a r=30", {"r": 30}),),
)
