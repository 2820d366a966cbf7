"""What every additive adapter on a layer has in common: trained tensors, dropout and forward.

A method says which tensors it trains and computes ΔW from them; the kind of layer (`kinds`) puts ΔW to work; the rest
is here.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from randlora.adapter.kinds import KINDS, LINEARS, find_kind, kind_of
from randlora.adapter.merging import MergingLayer
from randlora.adapter.placement import weight_device, weight_dtype
from randlora.adapter.scaling import ScalingLayer
from randlora.adapter.trained import TrainedTensor
from randlora.adapter.weights import innermost
from randlora.errors import LayerError, UpdateError

BASE_MODEL = "__base__"
"""PEFT's name for no adapter, among the adapter names of a batch."""


class AdapterLayer(nn.Module, MergingLayer, ScalingLayer):
    """A layer of any kind with adapters of one method.

    A subclass is a method. It names its trained tensors in `adapter_layer_names`; each is an `nn.ModuleDict` of
    `TrainedTensor`s by adapter name. They are kept in float32 (float64 on a float64 layer) whatever the dtype of the
    base layer; the arithmetic runs in the dtype of the activations.

    A method writes `_delta_weight`, and where it need not form ΔW, `product` for linear layers and `rows` for
    embeddings. On a stack of matrices its trained tensors have the stack as leading sides, and so has ΔW.

    Args:
        base_layer: The layer to adapt.
        adapter_name: The adapter that is active until another is set.

    Attributes:
        kind: The kind of the base layer.
        stack: (count,) on a stack of matrices, () on a single one: the leading sides of every trained tensor.
        in_features: Columns of the matrix, or of each in a stack.
        out_features: Its rows.
        weight_is_read: True where code may read the layer's weight in place of calling the layer (see
            `targets.reads_weights`): `weight` is then W₀ + ΔW, as it is of parameters of modules.
        by_sample: True while every sample of a batch has its own adapter.

    Raises:
        LayerError: The layer cannot be adapted.
    """

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
        self.kind = kind_of(base)
        self.stack = self.kind.stack(base)
        self.out_features, self.in_features = self.kind.shape(base)
        self.weight_is_read = self.kind.weight_is_read
        self.base_layer = base_layer
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ModuleDict({}))
        self.adapter_dropout = nn.ModuleDict({})
        self.scaling, self.initial_scaling, self.merged_scaling = {}, {}, {}
        self._disable_adapters = False
        self._active_adapter = adapter_name
        self.merged_adapters: list[str] = []

    @classmethod
    def refusal(cls, layer: nn.Module) -> str:
        """What a layer without adapters would have to be for this method to adapt it; empty if it can.

        A method that does not go with a kind of layer says so here.
        """
        kind = find_kind(layer)
        if kind is None:
            return " or ".join(layer_type.__name__ for each in KINDS for layer_type in each.types)
        return kind.refusal(layer)

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
        self.prepare_bases()
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AdapterLayer":
        super()._apply(fn, recurse)
        self.prepare_bases()  # bases are no buffers of this module, yet they follow it to a device or dtype
        return self

    def prepare_bases(self) -> None:
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
        return self.kind.forward(self, adapter_names, x, *args, **kwargs)

    def _add_updates_by_row(self, adapter_names: Sequence[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if len(adapter_names) != len(x):
            hint = "a layer with inputs that all samples share, as positions, cannot be split" if len(x) == 1 else ""
            got = str(len(adapter_names))
            raise UpdateError("adapter_names", expected=f"{len(x)} names, one per sample", got=got, hint=hint)
        result = self.base_layer(x, *args, **kwargs)
        for name in self.adapter_dropout if not self.disable_adapters else ():
            rows = torch.tensor([row for row, own in enumerate(adapter_names) if own == name], device=x.device)
            if len(rows):
                result = self.kind.add_to_rows(self, result, rows, name, x, *args, **kwargs)
        return result

    def update(self, adapter_name: str, x: Tensor) -> Tensor:
        """What an adapter adds to the layer's output for an input x."""
        return self.kind.update(self, adapter_name, x)

    def product(self, adapter_name: str, x: Tensor) -> Tensor:
        """x·ΔWᵀ on a linear layer, in the dtype of x; a method overrides it where it need not form ΔW."""
        return F.linear(x, self._delta_weight(adapter_name).to(x.dtype))

    def rows(self, adapter_name: str, index: Tensor) -> Tensor:
        """Rows of ΔW on an embedding by their numbers; a method overrides it where it need not form ΔW."""
        return F.embedding(index, self._delta_weight(adapter_name))

    @abstractmethod
    def _delta_weight(self, adapter_name: str) -> Tensor:
        """ΔW of an adapter, (*stack, out, in), in the dtype of its trained tensors; the method's part."""

    def delta_weight(self, adapter_name: str) -> Tensor:
        """ΔW of an adapter as it is added to the weight: with zeros where the kind of layer leaves it out."""
        return self.kind.leave_out(self.get_base_layer(), self._delta_weight(adapter_name))

    def folded(self, adapter_names: Sequence[str]) -> Tensor:
        """W₀ and the ΔW of adapters, rounded once to the dtype of W₀ and in its layout; differentiable."""
        base_layer = self.get_base_layer()
        weight = folded = self.kind.read(base_layer)
        for name in adapter_names:
            delta = self.delta_weight(name)
            if weight.is_meta and not delta.is_meta:
                raise UpdateError(
                    type(getattr(base_layer, "owner", base_layer)).__name__,
                    expected="a weight in memory, to add ΔW to it",
                    got="an offloaded one",
                    hint="merge the adapter first",
                )
            folded = folded + delta
        return self.kind.stored(base_layer, folded.to(weight.dtype))

    @property
    def weight(self) -> Tensor:
        """The base layer's weight, for code that looks at it; see `weight_is_read`."""
        names = self._adapters_to_apply() if self.weight_is_read else []
        if names and (self.by_sample or any(map(self.drops, names))):
            raise UpdateError(
                type(self.get_base_layer()).__name__,
                expected="no dropout and no adapter_names",
                hint="the module around it reads its weight in place of calling it; leave it out of target_modules",
            )
        return self.folded(names) if names else super().weight

    def drops(self, adapter_name: str) -> bool:
        """Whether inputs of the adapter's update are dropped now."""
        return self.training and not isinstance(self.adapter_dropout[adapter_name], nn.Identity)

    def base_has_hooks(self) -> bool:
        """Whether calling the base layer does more than its arithmetic, or another adapter lies around it."""
        base = self.base_layer
        around_forward = base._forward_hooks or base._forward_pre_hooks or hasattr(base, "_hf_hook")
        around_backward = base._backward_hooks or base._backward_pre_hooks
        is_patched = "forward" in base.__dict__  # which hides that of its class
        return bool(around_forward or around_backward) or is_patched or isinstance(base, BaseTunerLayer)

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """ΔW of an adapter in the layout of the base layer's weight: (out, in), for Conv1D (in, out).

        Args:
            adapter_name: Its name.

        Returns:
            A tensor in the dtype of the trained tensors; the scaling is included.
        """
        return self.kind.stored(self.get_base_layer(), self.delta_weight(adapter_name))

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:  # noqa: ARG002 - PEFT's signature
        """ΔW is additive, so PEFT can convert it on a linear layer."""
        return isinstance(self.get_base_layer(), LINEARS)


def _value(entry: nn.Module) -> Tensor:
    value: Tensor = entry.value() if isinstance(entry, TrainedTensor) else entry()  # FSDP1's wrapper has a call only
    return value
