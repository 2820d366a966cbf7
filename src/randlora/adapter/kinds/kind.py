"""What a kind of layer is: which layers it takes, how their weight is a matrix, and what a forward pass adds.

A method gives ΔW of a matrix and knows no kind; a kind puts any ΔW to work and knows no method. An adapter layer holds
one of each.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from randlora.adapter.placement import compute_dtype
from randlora.adapter.quantized import is_torchao
from randlora.errors import UpdateError

_RECOMPUTED = {"weight_g", "weight_orig"}
"""Parameters from which hooks of torch.nn.utils compute the weight anew in every forward pass."""


class Adapter(Protocol):
    """What a kind asks of an adapter layer; see `AdapterLayer`."""

    base_layer: Any
    adapter_dropout: nn.ModuleDict

    def get_base_layer(self) -> Any:
        """The layer inside all adapters."""

    def delta_weight(self, adapter_name: str) -> Tensor:
        """ΔW, zero where the kind leaves it out."""

    def folded(self, adapter_names: list[str]) -> Tensor:
        """W₀ + ΔW in the layout of the weight."""

    def product(self, adapter_name: str, x: Tensor) -> Tensor:
        """x·ΔWᵀ."""

    def rows(self, adapter_name: str, index: Tensor) -> Tensor:
        """Rows of ΔW."""

    def update(self, adapter_name: str, x: Tensor) -> Tensor:
        """What is added to the output for an input."""

    def drops(self, adapter_name: str) -> bool:
        """Whether inputs of the update are dropped now."""

    def base_has_hooks(self) -> bool:
        """Whether calling the base layer does more than its arithmetic."""


class LayerKind:
    """A kind of layer; it holds no state, and every method of it takes the layer, or the adapter on it.

    Whatever the kind, a method sees a matrix (rows, columns), or a stack of matrices (count, rows, columns).

    Attributes:
        types: Classes of the layers.
        forwards: What torch's own layers of the kind compute.
        weight_is_read: True where nobody calls the layer: what uses it reads its weight.
    """

    types: ClassVar[tuple[type[nn.Module], ...]]
    forwards: ClassVar[tuple[Callable[..., Any], ...]] = ()
    weight_is_read: ClassVar[bool] = False

    def fits(self, layer: nn.Module) -> bool:
        """Whether a layer without adapters is of this kind."""
        return isinstance(layer, self.types)

    def refusal(self, layer: Any) -> str:
        """What a layer of this kind would have to be to be adapted; empty if it can be."""
        module = getattr(layer, "owner", layer)
        # nn.MultiheadAttention reads the weight of its output projection but never calls it: an adapter would be dead.
        if isinstance(module, NonDynamicallyQuantizableLinear):
            return "a layer that is called (to adapt nn.MultiheadAttention, name the attention module)"
        if is_parametrized(module) or not _RECOMPUTED.isdisjoint(module._parameters):
            return (
                "a weight without parametrization (call, of torch.nn.utils, parametrize.remove_parametrizations, "
                "remove_weight_norm, remove_spectral_norm or prune.remove)"
            )
        weight = layer.weight
        if is_lazy(weight):
            return "a weight with a shape (call the model once before)"
        if not weight.is_floating_point() or weight.itemsize == 1 or is_torchao(weight):
            return "a floating-point weight, or a quantized linear layer of bitsandbytes, torchao, HQQ, GPTQ or AWQ"
        return "" if weight.numel() else "a weight that holds numbers"

    def is_plain(self, layer: nn.Module) -> bool:
        """Whether the forward of a layer is torch's own, or as good."""
        return type(layer).forward in self.forwards

    def takes_dropout(self, layer: nn.Module) -> bool:  # noqa: ARG002 - for subclasses
        """Whether the inputs of an update on a layer can be dropped."""
        return True

    def stack(self, layer: Any) -> tuple[int, ...]:  # noqa: ARG002 - for subclasses
        """(count,) of a stack of matrices, () of a single one."""
        return ()

    def shape(self, layer: Any) -> tuple[int, int]:
        """(rows, columns) of the matrix."""
        return layer.weight.shape[0], layer.weight.shape[1:].numel()

    def full_shape(self, layer: Any) -> tuple[int, ...]:
        """`shape` with what it hides."""
        return self.stack(layer) + self.shape(layer)

    def read(self, layer: Any) -> Tensor:
        """The weight as a matrix, or a stack; a view where the memory allows."""
        weight: Tensor = layer.weight
        return weight.reshape(self.stack(layer) + self.shape(layer))

    def stored(self, layer: Any, matrix: Tensor) -> Tensor:
        """A matrix, or stack, in the layout of the weight: the inverse of `read`."""
        return matrix.reshape(layer.weight.shape)

    @torch.no_grad()
    def write(self, layer: Any, matrix: Tensor) -> None:
        """Overwrite the weight, given as `read` returns it, keeping its dtype, its memory and its ties."""
        layer.weight.copy_(self.stored(layer, matrix))

    def leave_out(self, layer: Any, delta: Tensor) -> Tensor:  # noqa: ARG002 - for subclasses
        """ΔW, with zeros where the layer stays what it is."""
        return delta

    def forward(self, adapter: Adapter, adapter_names: list[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output plus the update of every adapter named."""
        result: Tensor = adapter.base_layer(x, *args, **kwargs)
        for name in adapter_names:
            _check_output(adapter, result)
            result = result + adapter.update(name, x).to(result.dtype)
        return result

    def add_to_rows(
        self, adapter: Adapter, result: Tensor, rows: Tensor, adapter_name: str, x: Tensor, *_args: Any, **_kwargs: Any
    ) -> Tensor:
        """The base layer's output for a batch plus one adapter's update of the samples that are its own.

        Args:
            adapter: The adapter layer.
            result: The output so far.
            rows: Numbers of the samples.
            adapter_name: The adapter.
            x: The whole batch.
        """
        _check_output(adapter, result)
        return result.index_add(0, rows, adapter.update(adapter_name, x[rows]).to(result.dtype))

    def update(self, adapter: Adapter, adapter_name: str, x: Tensor) -> Tensor:
        """What an adapter adds to the output."""
        dropout: nn.Module = adapter.adapter_dropout[adapter_name]
        x = dropout(x.to(compute_dtype(x, adapter.get_base_layer())))
        with torch.autocast(x.device.type, enabled=False):
            return self.apply_delta(adapter, adapter_name, x)

    def apply_delta(self, adapter: Adapter, adapter_name: str, x: Tensor) -> Tensor:
        """The layer's arithmetic with ΔW in place of the weight and no bias, in the dtype of x."""
        raise NotImplementedError


def _check_output(adapter: Adapter, result: Any) -> None:
    """Raise an UpdateError where a forward of the layer's own gives more than a tensor: what is the update added to?"""
    if not isinstance(result, Tensor):
        raise UpdateError(
            type(adapter.get_base_layer()).__name__,
            expected="a layer whose output is one tensor, to add the update to it",
            got=type(result).__name__,
            hint="narrow target_modules, or name it in exclude_modules",
        )
