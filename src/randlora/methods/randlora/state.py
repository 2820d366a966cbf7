"""The RandLoRA adapters on one base layer, of any kind: λ, γ, the frozen bases, and ΔW from them."""

from functools import partial
from math import sqrt

import torch
from torch import Tensor, nn

from randlora.adapter.base_layer import AdapterLayer
from randlora.adapter.placement import weight_dtype
from randlora.bases import Bases, SpectralBases
from randlora.methods.randlora.config import RandLoraConfig
from randlora.update import Form, Sizes, UpdateSpec, delta_weight, reference_delta_weight


def balanced_scaling(alpha: float, r: float, small: int) -> float:
    """G = alpha·√r/m^(4/3), with which the best learning rate is that of other ranks and widths.

    Args:
        alpha: The config's.
        r: Number of columns of a basis that share one γ.
        small: m.
    """
    return alpha * sqrt(r) / small ** (4 / 3)


class RandLoraState(AdapterLayer):
    """Trained λ and γ of each adapter, and its frozen bases.

    Attributes:
        randlora_lambda: Adapter name -> λ (n, r), starts at 1; on a stack of matrices one for each.
        randlora_gamma: Adapter name -> γ (n, m), starts at 0; on a stack of matrices one for each.
    """

    adapter_layer_names: tuple[str, ...] = ("randlora_lambda", "randlora_gamma")
    other_param_names = (
        *AdapterLayer.other_param_names,
        "r",
        "num_bases",
        "strategy",
        "randlora_bases",
    )
    randlora_lambda: nn.ModuleDict
    randlora_gamma: nn.ModuleDict

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.r: dict[str, int] = {}
        self.num_bases: dict[str, int] = {}
        self.strategy: dict[str, str] = {}
        self.randlora_bases: dict[str, Bases | SpectralBases] = {}

    @property
    def small_is_input(self) -> bool:
        """Whether the trained diagonals sit on the input side (in ≤ out)."""
        return self.in_features <= self.out_features

    def update_layer(
        self,
        adapter_name: str,
        config: RandLoraConfig,
        r: int,
        alpha: float,
        strategy: str,
        bases: Bases,
    ) -> None:
        """Add an adapter, or replace the one of this name.

        Args:
            adapter_name: Its name.
            config: Its configuration.
            r: Basis rank for this layer, before `rank_fraction`.
            alpha: alpha for this layer.
            strategy: Strategy for this layer.
            bases: Its frozen bases.
        """
        sizes = config.basis_sizes((self.out_features, self.in_features), r)
        r = sizes.r
        scaling = alpha / r if config.bases == "peft" else balanced_scaling(alpha, r, sizes.small)
        self.set_update(adapter_name, bases, strategy, r, sizes.num_bases)
        start = self._start(config, config.terms * sizes.num_bases, r)
        self.add_adapter(
            adapter_name, start, bases.scale(r) * scaling, dropout=config.dropout, inference_mode=config.inference_mode
        )

    def set_update(
        self, adapter_name: str, bases: Bases | SpectralBases, strategy: str, r: int, num_bases: int
    ) -> None:
        """Take what is fixed about an adapter's update.

        Args:
            adapter_name: Its name.
            bases: Its frozen bases.
            strategy: How it is applied.
            r: Basis rank.
            num_bases: n.
        """
        self.r[adapter_name], self.num_bases[adapter_name] = r, num_bases
        self.strategy[adapter_name] = strategy
        self.randlora_bases[adapter_name] = bases

    def _start(self, config: RandLoraConfig, rows: int, r: int) -> tuple[Tensor, ...]:
        """Initial values of λ (rows, r) and γ (rows, m), on a stack of matrices for each."""
        small, dtype = min(self.in_features, self.out_features), self.trained_dtype
        lambda_shape, gamma_shape = (*self.stack, rows, r), (*self.stack, rows, small)
        if not config.init_weights:
            return torch.randn(lambda_shape, dtype=dtype), torch.randn(gamma_shape, dtype=dtype)
        if config.bases == "peft":
            value = 1 / max(rows // config.terms, small)
            return torch.zeros(lambda_shape, dtype=dtype), torch.full(gamma_shape, value, dtype=dtype)
        return torch.ones(lambda_shape, dtype=dtype), torch.zeros(gamma_shape, dtype=dtype)

    def diagonals(self, adapter_name: str) -> tuple[Tensor, Tensor]:
        """An adapter's λ and γ; see `trained`."""
        lambda_, gamma = self.trained(adapter_name)[:2]
        return lambda_, gamma

    def update_spec(self, adapter_name: str) -> UpdateSpec:
        """What `randlora.update` needs to know of an adapter on this layer."""
        small, large = sorted((self.in_features, self.out_features))
        sizes = Sizes(self.r[adapter_name], self.num_bases[adapter_name], small, large)
        return UpdateSpec(sizes, self.small_is_input, self.scaling[adapter_name])

    def form(self, adapter_name: str, device: torch.device, dtype: torch.dtype) -> Form:
        """What describes the adapter's bases for this layer."""
        return self.randlora_bases[adapter_name].form(self.update_spec(adapter_name).sizes, device, dtype)

    def _draw_bases(self, adapter_name: str, device: torch.device) -> None:
        dtype = weight_dtype(self.get_base_layer())
        if dtype is not None:
            self.form(adapter_name, device, dtype)

    def _delta_weight(self, adapter_name: str) -> Tensor:
        lambda_, gamma = self.diagonals(adapter_name)
        form = self.form(adapter_name, lambda_.device, lambda_.dtype)
        if not self.stack:
            return self._delta_of(adapter_name, form, lambda_, gamma)
        return torch.vmap(partial(self._delta_of, adapter_name, form))(lambda_, gamma)

    def _delta_of(self, adapter_name: str, form: Form, lambda_: Tensor, gamma: Tensor) -> Tensor:
        """ΔW of one matrix."""
        spec = self.update_spec(adapter_name)
        if self.strategy[adapter_name] == "reference":
            pair = form.operator(spec.sizes).pair()
            return reference_delta_weight(
                *pair, lambda_, gamma, scaling=spec.scaling, small_is_input=spec.small_is_input
            )
        return delta_weight(spec, form, lambda_, gamma)

    def extra_repr(self) -> str:
        """Adapters with their r and n."""
        return ", ".join(f"{name}: r={r}, num_bases={self.num_bases[name]}" for name, r in self.r.items())
