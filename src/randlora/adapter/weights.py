"""Read and write the weight of a base layer: the two functions through which every kind of layer enters."""

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D


def layer_shape(layer: nn.Module) -> tuple[int, int] | None:
    """(out, in) of a layer that can be adapted, else None.

    Args:
        layer: An `nn.Linear`, or transformers' `Conv1D`, whose weight is stored (in, out).
    """
    if isinstance(layer, BaseTunerLayer):
        layer = layer.get_base_layer()
    if isinstance(layer, Conv1D):
        return layer.weight.shape[1], layer.weight.shape[0]
    # nn.MultiheadAttention reads the weight of its output projection but never calls it: an adapter would be dead.
    if isinstance(layer, NonDynamicallyQuantizableLinear):
        return None
    # Quantized linears subclass nn.Linear but hold packed integers, or 8-bit floats with scales.
    if isinstance(layer, nn.Linear) and layer.weight.is_floating_point() and layer.weight.itemsize > 1:
        return layer.out_features, layer.in_features
    return None


def read_weight(layer: Any) -> Tensor:
    """The weight as (out, in): a view of the parameter, for Conv1D a transposed one."""
    weight: Tensor = layer.weight
    return weight.T if isinstance(layer, Conv1D) else weight


def write_weight(layer: nn.Module, weight: Tensor) -> None:
    """Overwrite the weight, given as (out, in), keeping its dtype, its memory and its ties.

    Args:
        layer: The base layer.
        weight: New values; rounded to the layer's dtype.
    """
    with torch.no_grad():
        read_weight(layer).copy_(weight)
