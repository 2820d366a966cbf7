"""The state of the adapters on one base layer, and everything about it that does not depend on the kind of layer."""

from math import sqrt
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from randlora.adapter.weights import layer_shape, read_weight, write_weight
from randlora.bases import Bases
from randlora.config import RandLoraConfig
from randlora.errors import LayerError
from randlora.update import UpdateSpec, delta_weight, make_operator, reference_delta_weight


class RandLoraLayer(BaseTunerLayer):
    """Trained λ and γ of each adapter, its frozen bases, and merging.

    λ and γ are kept in float32 (float64 on a float64 layer) whatever the dtype of the base layer; the arithmetic runs
    in the dtype of the activations.

    Attributes:
        randlora_lambda: Adapter name -> λ (n, r), starts at 1.
        randlora_gamma: Adapter name -> γ (n, m), starts at 0.
        scaling: Adapter name -> g = alpha·√r/m^(4/3), times the factor that gives the bases unit variance.
    """

    adapter_layer_names = ("randlora_lambda", "randlora_gamma")
    other_param_names = ("randlora_dropout", "r", "num_bases", "scaling", "strategy", "randlora_bases")

    def __init__(self, base_layer: nn.Module) -> None:
        self.base_layer = base_layer
        self.randlora_lambda = nn.ParameterDict({})
        self.randlora_gamma = nn.ParameterDict({})
        self.randlora_dropout = nn.ModuleDict({})
        self.r: dict[str, int] = {}
        self.num_bases: dict[str, int] = {}
        self.scaling: dict[str, float] = {}
        self.strategy: dict[str, str] = {}
        self.randlora_bases: dict[str, Bases] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        shape = layer_shape(base_layer)
        if shape is None:
            raise LayerError(type(base_layer).__name__, expected="nn.Linear or Conv1D with a floating-point weight")
        self.out_features, self.in_features = shape

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
        bases: Bases,
        inference_mode: bool = False,
    ) -> None:
        """Add an adapter, or replace the one of this name.

        Args:
            adapter_name: Its name.
            config: Its configuration.
            r: Basis rank for this layer.
            alpha: alpha for this layer.
            bases: Its frozen bases.
            inference_mode: True leaves λ and γ frozen.
        """
        small = min(self.in_features, self.out_features)
        bases_count = -(-small // r)
        self.r[adapter_name], self.num_bases[adapter_name] = r, bases_count
        self.strategy[adapter_name] = config.strategy
        self.randlora_bases[adapter_name] = bases
        scaling = alpha / r if config.bases == "peft" else alpha * sqrt(r) / small ** (4 / 3)
        self.scaling[adapter_name] = bases.scale(r) * scaling
        self.randlora_dropout[adapter_name] = nn.Dropout(config.dropout) if config.dropout else nn.Identity()

        weight = read_weight(self.get_base_layer())
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        if not config.init_weights:
            lambda_, gamma = (
                torch.randn(bases_count, r, dtype=dtype),
                torch.randn(bases_count, small, dtype=dtype),
            )
        elif config.bases == "peft":
            lambda_ = torch.zeros(bases_count, r, dtype=dtype)
            gamma = torch.full((bases_count, small), 1 / max(bases_count, small), dtype=dtype)
        else:
            lambda_ = torch.ones(bases_count, r, dtype=dtype)
            gamma = torch.zeros(bases_count, small, dtype=dtype)
        self.randlora_lambda[adapter_name] = nn.Parameter(lambda_)
        self.randlora_gamma[adapter_name] = nn.Parameter(gamma)
        self._prepare_bases()
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """As PEFT's, without the cast to the base layer's dtype: λ and γ keep their own."""
        device = device or read_weight(self.get_base_layer()).device
        for parameters in (self.randlora_lambda, self.randlora_gamma):
            if adapter_name in parameters and device.type != "meta" and not parameters[adapter_name].is_meta:
                parameters[adapter_name].data = parameters[adapter_name].data.to(device)

    def trained(self, adapter_name: str) -> tuple[Tensor, Tensor]:
        """λ and γ of an adapter; where accelerate has offloaded them, on the device that it runs the layer on."""
        return _fetch(self.randlora_lambda, adapter_name), _fetch(self.randlora_gamma, adapter_name)

    def update_spec(self, adapter_name: str) -> UpdateSpec:
        """What `randlora.update` needs to know of an adapter on this layer."""
        small, large = sorted((self.in_features, self.out_features))
        kind = self.randlora_bases[adapter_name].kind
        return UpdateSpec(
            kind, self.r[adapter_name], small, large, self.small_is_input, scaling=self.scaling[adapter_name]
        )

    def bases_tensors(self, adapter_name: str, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The tensors that describe the adapter's bases for this layer (see `randlora.update.make_operator`)."""
        small, large = sorted((self.in_features, self.out_features))
        return self.randlora_bases[adapter_name].tensors(self.r[adapter_name], small, large, device, dtype)

    def _prepare_bases(self) -> None:
        """Have the bases drawn where the layer is, so that no forward pass, compiled or not, has to draw them."""
        weight = read_weight(self.get_base_layer())
        if weight.device.type != "meta":
            for name in self.randlora_bases:
                self.bases_tensors(name, weight.device, weight.dtype)

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """ΔW of an adapter in the layout of the base layer's weight: (out, in), for Conv1D (in, out).

        Args:
            adapter_name: Its name.

        Returns:
            A tensor in the dtype of λ; g is included.
        """
        delta = self._delta_weight(adapter_name)
        return delta.T if isinstance(self.get_base_layer(), Conv1D) else delta

    def _delta_weight(self, adapter_name: str) -> Tensor:
        lambda_, gamma = self.trained(adapter_name)
        bases = self.bases_tensors(adapter_name, lambda_.device, lambda_.dtype)
        spec = self.update_spec(adapter_name)
        if self.strategy[adapter_name] != "reference":
            return delta_weight(spec, bases, lambda_, gamma)
        A, B = make_operator(spec, bases).pair()
        return reference_delta_weight(A, B, lambda_, gamma, spec.scaling, small_is_input=spec.small_is_input)

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add ΔW of adapters to the base weight.

        Args:
            safe_merge: Check that the result is finite before writing it.
            adapter_names: Which; None merges the active ones.

        Raises:
            LayerError: `safe_merge` found a value that is not finite; the weight is as it was.
        """
        for name in check_adapters_to_merge(self, adapter_names):
            if name not in self.randlora_lambda:
                continue
            self._add_to_weight(self._delta_weight(name), adapter_name=name, check=safe_merge)
            self.merged_adapters.append(name)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Subtract ΔW of every merged adapter; the weight comes back up to the rounding of its dtype."""
        while self.merged_adapters:
            name = self.merged_adapters.pop()
            if name in self.randlora_lambda:
                self._add_to_weight(-self._delta_weight(name), adapter_name=name, check=False)

    def _add_to_weight(self, delta: Tensor, *, adapter_name: str, check: bool) -> None:
        base_layer = self.get_base_layer()
        weight = read_weight(base_layer)
        merged = weight + delta.to(weight.device)
        if check and not torch.isfinite(merged).all():
            raise LayerError(
                f"adapter {adapter_name!r}",
                expected="finite merged weights",
                hint="its λ or γ holds NaN or infinity",
            )
        write_weight(base_layer, merged)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:  # noqa: ARG002 - PEFT's signature
        """ΔW is additive, so PEFT can convert it."""
        return True


def _fetch(parameters: nn.ParameterDict, name: str) -> Tensor:
    # accelerate loads offloaded weights around a module's forward, and a ParameterDict has none.
    hook = getattr(parameters, "_hf_hook", None)
    if hook is None:
        return parameters[name]
    hook.pre_forward(parameters)
    fetched = parameters[name]
    hook.post_forward(parameters, None)
    return fetched


def compute_dtype(x: Tensor, weight: Any) -> torch.dtype:
    """The dtype of a linear layer's arithmetic: autocast's where it is on, else the weight's where it is floating."""
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device_type)
    return weight.dtype
