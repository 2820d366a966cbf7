"""Read and write the weight of a base layer: the functions through which every kind of layer enters.

Whatever the kind, an adapter sees a matrix (rows, columns): an embedding's rows are its entries, a convolution's kernel
is flattened behind its first side, a stacked parameter is a batch of matrices.
"""

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized
from transformers.pytorch_utils import Conv1D

from randlora.adapter.quantized import is_torchao, quantized_format
from randlora.errors import LayerError

LINEARS = (nn.Linear, Conv1D)
_PLAIN_FORWARDS = {layer.forward for layer in (*LINEARS, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)}
_RECOMPUTED = {"weight_g", "weight_orig"}
"""Parameters from which hooks of torch.nn.utils compute the weight anew in every forward pass."""


class StackedWeight(nn.Module):
    """A parameter of a module as a stack of matrices (count, rows, columns): a base layer that owns no tensor.

    Args:
        owner: The module, or an ancestor of it.
        name: The parameter's name in the owner.
        count: Number of matrices that a parameter of two sides holds one below the other; one with three sides is
            stacked already.
    """

    def __init__(self, owner: nn.Module, name: str, count: int = 1) -> None:
        super().__init__()
        self._owner = (owner,)  # a tuple, so that it is not registered as a submodule
        self.name = name
        shape = self.weight.shape
        self.shape = (count, shape[0] // count, shape[1]) if len(shape) == 2 else tuple(shape)

    @property
    def owner(self) -> nn.Module:
        """The module."""
        return self._owner[0]

    @property
    def weight(self) -> Tensor:
        """The parameter as its module holds it: under FSDP, whole during a forward pass, no Parameter but a view."""
        path, _, name = self.name.rpartition(".")
        weight: Tensor = getattr(self.owner.get_submodule(path), name)
        return weight


def why_not(layer: Any) -> str:
    """What a layer would have to be to be adapted; empty if it can be.

    Args:
        layer: A linear layer, quantized or not, convolution, embedding or `StackedWeight`.
    """
    if quantized_format(layer) is not None:
        return ""
    # nn.MultiheadAttention reads the weight of its output projection but never calls it: an adapter would be dead.
    module = getattr(layer, "owner", layer)
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
    wrong_sides = isinstance(layer, StackedWeight) and len(layer.shape) != 3
    expected = "a parameter with two or three sides" if wrong_sides else "a weight that holds numbers"
    return expected if wrong_sides or not weight.numel() else ""


def is_plain(layer: nn.Module) -> bool:
    """Whether the forward of a layer is the product with its weight, or its rows, and a bias: torch's, or as good."""
    return (
        type(layer).forward in _PLAIN_FORWARDS
        or type(layer).__name__ == "FalconLinear"  # of transformers, which rounds between product and bias
        or quantized_format(layer) is not None
    )


def innermost(layer: nn.Module) -> nn.Module:
    """The layer inside adapters, or the layer itself."""
    return layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer


def layer_shape(layer: nn.Module) -> tuple[int, int]:
    """(rows, columns) of a layer's matrix: (out, in) of a linear layer.

    Args:
        layer: One that `why_not` has nothing against, adapted already or not.
    """
    base: Any = innermost(layer)
    if isinstance(base, StackedWeight):
        return base.shape[1], base.shape[2]
    if quantized_format(base) is not None:
        return base.out_features, base.in_features
    weight: Tensor = base.weight
    if isinstance(base, Conv1D):
        return weight.shape[1], weight.shape[0]
    return weight.shape[0], weight.shape[1:].numel()


def full_shape(layer: nn.Module) -> tuple[int, ...]:
    """`layer_shape` with what it hides: the sides of a convolution's kernel, the number of matrices of a stack."""
    base: Any = innermost(layer)
    is_kernel = quantized_format(base) is None and not isinstance(base, (*LINEARS, nn.Embedding, StackedWeight))
    return tuple(base.weight.shape) if is_kernel else stack_shape(base) + layer_shape(base)


def stack_shape(layer: Any) -> tuple[int, ...]:
    """(count,) of a stack of matrices, () of a single one."""
    return (layer.shape[0],) if isinstance(layer, StackedWeight) else ()


def weight_device(layer: Any) -> torch.device:
    """Where the weight is."""
    if quantized_format(layer) is None:
        return layer.weight.device
    return next(tensor.device for tensors in (layer.parameters(), layer.buffers()) for tensor in tensors)


def weight_dtype(layer: Any) -> torch.dtype | None:
    """The dtype that the layer computes in; None of a quantized one, which takes that of the activations."""
    return layer.weight.dtype if quantized_format(layer) is None else None


def read_weight(layer: Any) -> Tensor:
    """The weight as (rows, columns), with the stack before it where there is one; a view where the memory allows.

    A quantized weight is dequantized.

    Raises:
        LayerError: The format of a quantized weight cannot be read.
    """
    quantized = quantized_format(layer)
    if quantized is not None:
        if quantized.dequantize is None:
            raise LayerError(type(layer).__name__, expected="a weight that can be read", got=f"one in {quantized.name}")
        return quantized.dequantize(layer)
    weight: Tensor = layer.weight
    if isinstance(layer, Conv1D):
        return weight.T
    if isinstance(layer, nn.Linear):
        return weight
    return weight.reshape(stack_shape(layer) + layer_shape(layer))


def as_stored(layer: Any, matrix: Tensor) -> Tensor:
    """A matrix, or stack, in the layout of the layer's weight: the inverse of `read_weight`."""
    if quantized_format(layer) is not None:
        return matrix
    return matrix.T if isinstance(layer, Conv1D) else matrix.reshape(layer.weight.shape)


def write_weight(layer: Any, weight: Tensor) -> None:
    """Overwrite the weight, given as `read_weight` returns it, keeping its dtype, its memory and its ties.

    Args:
        layer: The base layer.
        weight: New values; rounded to the layer's dtype, or quantized format.

    Raises:
        LayerError: The format of a quantized weight cannot be written.
    """
    quantized = quantized_format(layer)
    with torch.no_grad():
        if quantized is not None:
            if quantized.requantize is None:
                raise LayerError(type(layer).__name__, expected="a weight to write", got=f"one in {quantized.name}")
            quantized.requantize(layer, weight)
            return
        layer.weight.copy_(as_stored(layer, weight))
