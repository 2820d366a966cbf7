"""What every additive adapter on a layer has in common: trained tensors, dropout and forward.

A method says which tensors it trains and computes ΔW from them; the rest is here.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from randlora.adapter.merging import MergingLayer
from randlora.adapter.quantized import quantized_format
from randlora.adapter.scaling import ScalingLayer
from randlora.adapter.trained import TrainedTensor
from randlora.adapter.weights import (
    LINEARS,
    as_stored,
    innermost,
    layer_shape,
    read_weight,
    weight_device,
    weight_dtype,
    why_not,
)
from randlora.errors import LayerError, UpdateError

BASE_MODEL = "__base__"
"""PEFT's name for no adapter, among the adapter names of a batch."""


class AdapterLayer(nn.Module, MergingLayer, ScalingLayer):
    """An `nn.Linear` or `Conv1D` with adapters of one method; subclasses take other kinds of layers.

    A subclass names its trained tensors in `adapter_layer_names`; each is an `nn.ModuleDict` of `TrainedTensor`s by
    adapter name. They are kept in float32 (float64 on a float64 layer) whatever the dtype of the base layer; the
    arithmetic runs in the dtype of the activations.

    Args:
        base_layer: The layer to adapt.
        adapter_name: The adapter that is active until another is set.

    Attributes:
        weight_is_read: True where code may read the layer's weight in place of calling the layer (see
            `targets.reads_weights`): `weight` is then W₀ + ΔW, as it is of parameters of modules.
        by_sample: True while every sample of a batch has its own adapter.

    Raises:
        LayerError: The layer cannot be adapted.
    """

    base_types: tuple[type[nn.Module], ...] = LINEARS
    adapter_layer_names: tuple[str, ...]
    other_param_names: tuple[str, ...] = ("adapter_dropout", "scaling", "initial_scaling")
    weight_is_read = False
    by_sample = False
    base_layer: Any
    adapter_dropout: nn.ModuleDict
    # BaseTunerLayer's, which nn.Module's __getattr__ hides from type checkers.
    active_adapters: Any
    get_base_layer: Any
    set_adapter: Any

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__()
        base: Any = innermost(base_layer)
        if refusal := self.refusal(base):
            raise LayerError(type(base).__name__, expected=refusal)
        # What models ask of a layer beside calling it: Whisper its convolutions' stride, others an embedding's size.
        for name in getattr(base, "__constants__", ()):
            if hasattr(base, name):
                setattr(self, name, getattr(base, name))
        self.out_features, self.in_features = layer_shape(base_layer)
        self.base_layer = base_layer
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ModuleDict({}))
        self.adapter_dropout = nn.ModuleDict({})
        self.scaling, self.initial_scaling, self.merged_scaling = {}, {}, {}
        self._disable_adapters = False
        self._active_adapter = adapter_name
        self.merged_adapters: list[str] = []

    @classmethod
    def fits(cls, layer: nn.Module) -> bool:
        """Whether a layer without adapters is of the kind that this class adapts."""
        return isinstance(layer, cls.base_types) or (cls.base_types is LINEARS and quantized_format(layer) is not None)

    @classmethod
    def refusal(cls, layer: nn.Module) -> str:
        """What a layer without adapters would have to be for this class to adapt it; empty if it can."""
        if not cls.fits(layer):
            return " or ".join(base_type.__name__ for base_type in cls.base_types)
        return why_not(layer)

    @classmethod
    def takes_dropout(cls, layer: nn.Module) -> bool:  # noqa: ARG003 - for subclasses
        """Whether the inputs of an update on this layer can be dropped."""
        return True

    @property
    def trained_dtype(self) -> torch.dtype:
        """Dtype of the trained tensors."""
        return torch.float64 if weight_dtype(self.get_base_layer()) == torch.float64 else torch.float32

    def add_adapter(
        self, adapter_name: str, start: Sequence[Tensor], scaling: float, *, dropout: float, inference_mode: bool
    ) -> None:
        """Add an adapter, or replace the one of this name.

        Args:
            adapter_name: Its name.
            start: Initial values, one tensor per name of `adapter_layer_names`.
            scaling: The factor of its update.
            dropout: Probability of dropping an input of the update while training.
            inference_mode: True leaves the tensors frozen.
        """
        self.scaling[adapter_name] = self.initial_scaling[adapter_name] = scaling
        for name, tensor in zip(self.adapter_layer_names, start, strict=True):
            getattr(self, name)[adapter_name] = TrainedTensor(tensor.to(self.trained_dtype))
        self.adapter_dropout[adapter_name] = nn.Dropout(dropout) if dropout else nn.Identity()
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self._prepare_bases()
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AdapterLayer":
        super()._apply(fn, recurse)
        self._prepare_bases()  # bases are no buffers of this module, yet they follow it to a device or dtype
        return self

    def _prepare_bases(self) -> None:
        """Have frozen bases drawn where the layer is, so that no forward pass, compiled or not, has to draw them."""
        device = weight_device(self.get_base_layer())
        if device.type != "meta":
            for name in self.adapter_dropout:
                self._draw_bases(name, device)

    def _draw_bases(self, adapter_name: str, device: torch.device) -> None:
        """Have an adapter's bases drawn on a device, where it has some and keeps them; for subclasses."""

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """As PEFT's, without the cast to the base layer's dtype: the trained tensors keep their own."""
        device = device or weight_device(self.get_base_layer())
        for name in self.adapter_layer_names:
            tensors = getattr(self, name)
            if adapter_name in tensors and device.type != "meta" and not tensors[adapter_name].weight.is_meta:
                tensors[adapter_name].weight.data = tensors[adapter_name].weight.data.to(device)

    def trained(self, adapter_name: str) -> tuple[Tensor, ...]:
        """An adapter's trained tensors, in the order of `adapter_layer_names`; see `TrainedTensor.value`."""
        return tuple(_value(getattr(self, name)[adapter_name]) for name in self.adapter_layer_names)

    def forward(self, x: Tensor, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any) -> Tensor:
        """x·W₀ᵀ + b, plus the update of every active adapter.

        Args:
            x: (..., in).
            *args: Passed to the base layer.
            adapter_names: One name per row of x in place of the active adapters; see `mixed_batch`.
            **kwargs: Passed to the base layer.

        Raises:
            UpdateError: There are more or fewer names than rows.
        """
        if adapter_names is not None:
            return self._add_updates_by_row(adapter_names, x, *args, **kwargs)
        return self._add_updates(self._adapters_to_apply(), x, *args, **kwargs)

    def _adapters_to_apply(self) -> list[str]:
        """The active adapters that are not in the base weight already; none while adapters are disabled."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.disable_adapters or self.merged:
            return []
        return [name for name in self.active_adapters if name in self.adapter_dropout]

    def _add_updates(self, adapter_names: list[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result = self.base_layer(x, *args, **kwargs)
        for name in adapter_names:
            result = result + self._update(name, x).to(result.dtype)
        return result

    def _add_updates_by_row(self, adapter_names: Sequence[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if len(adapter_names) != len(x):
            hint = "a layer with inputs that all samples share, as positions, cannot be split" if len(x) == 1 else ""
            got = str(len(adapter_names))
            raise UpdateError("adapter_names", expected=f"{len(x)} names, one per sample", got=got, hint=hint)
        result = self.base_layer(x, *args, **kwargs)
        for name in self.adapter_dropout if not self.disable_adapters else ():
            rows = torch.tensor([row for row, own in enumerate(adapter_names) if own == name], device=x.device)
            if len(rows):
                result = self._add_to_rows(result, rows, name, x, *args, **kwargs)
        return result

    def _add_to_rows(
        self, result: Tensor, rows: Tensor, adapter_name: str, x: Tensor, *_args: Any, **_kw: Any
    ) -> Tensor:
        return result.index_add(0, rows, self._update(adapter_name, x[rows]).to(result.dtype))

    def _update(self, adapter_name: str, x: Tensor) -> Tensor:
        dropout: nn.Module = self.adapter_dropout[adapter_name]
        x = dropout(x.to(compute_dtype(x, self.get_base_layer())))
        with torch.autocast(x.device.type, enabled=False):
            return self._product(adapter_name, x)

    def _product(self, adapter_name: str, x: Tensor) -> Tensor:
        """x·ΔWᵀ in the dtype of x; a method overrides it where it need not form ΔW."""
        return F.linear(x, self._delta_weight(adapter_name).to(x.dtype))

    @abstractmethod
    def _delta_weight(self, adapter_name: str) -> Tensor:
        """ΔW of an adapter, (out, in) or as `read_weight` has the weight, in the dtype of its trained tensors."""

    def _folded(self, adapter_names: Sequence[str]) -> Tensor:
        """W₀ and the ΔW of adapters, rounded once to the dtype of W₀ and in its layout; differentiable."""
        base_layer = self.get_base_layer()
        weight = folded = read_weight(base_layer)
        for name in adapter_names:
            delta = self._delta_weight(name)
            if weight.is_meta and not delta.is_meta:
                raise UpdateError(
                    type(getattr(base_layer, "owner", base_layer)).__name__,
                    expected="a weight in memory, to add ΔW to it",
                    got="an offloaded one",
                    hint="merge the adapter first",
                )
            folded = folded + delta
        return as_stored(base_layer, folded.to(weight.dtype))

    @property
    def weight(self) -> Tensor:
        """The base layer's weight, for code that looks at it; see `weight_is_read`."""
        names = self._adapters_to_apply() if self.weight_is_read else []
        if names and (self.by_sample or any(map(self._drops, names))):
            raise UpdateError(
                type(self.get_base_layer()).__name__,
                expected="no dropout and no adapter_names",
                hint="the module around it reads its weight in place of calling it; leave it out of target_modules",
            )
        return self._folded(names) if names else super().weight

    def _drops(self, adapter_name: str) -> bool:
        """Whether inputs of the adapter's update are dropped now."""
        return self.training and not isinstance(self.adapter_dropout[adapter_name], nn.Identity)

    def _base_has_hooks(self) -> bool:
        """Whether calling the base layer does more than its arithmetic, or another adapter lies around it."""
        base = self.base_layer
        hooks = base._forward_hooks or base._forward_pre_hooks or hasattr(base, "_hf_hook")
        return bool(hooks) or isinstance(base, BaseTunerLayer)

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """ΔW of an adapter in the layout of the base layer's weight: (out, in), for Conv1D (in, out).

        Args:
            adapter_name: Its name.

        Returns:
            A tensor in the dtype of the trained tensors; the scaling is included.
        """
        return as_stored(self.get_base_layer(), self._delta_weight(adapter_name))

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:  # noqa: ARG002 - PEFT's signature
        """ΔW is additive, so PEFT can convert it on a linear layer."""
        return isinstance(self.get_base_layer(), LINEARS)


def _value(entry: nn.Module) -> Tensor:
    value: Tensor = entry.value() if isinstance(entry, TrainedTensor) else entry()  # FSDP1's wrapper has a call only
    return value


def compute_dtype(x: Tensor, layer: nn.Module) -> torch.dtype:
    """The dtype of a layer's arithmetic: autocast's where it is on, else the weight's; x's where that is quantized."""
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device_type)
    return weight_dtype(layer) or x.dtype
