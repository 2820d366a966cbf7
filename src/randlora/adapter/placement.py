"""Where a base layer is, and the dtype that it computes in."""

from typing import Any

import torch
from torch import Tensor, nn

from randlora.adapter.quantized import quantized_format


def weight_device(layer: Any) -> torch.device:
    """Where the weight is."""
    if quantized_format(layer) is None:
        return layer.weight.device
    return next(tensor.device for tensors in (layer.parameters(), layer.buffers()) for tensor in tensors)


def weight_dtype(layer: Any) -> torch.dtype | None:
    """The dtype that the layer computes in; None of a quantized one, which takes that of the activations."""
    return layer.weight.dtype if quantized_format(layer) is None else None


def compute_dtype(x: Tensor, layer: nn.Module) -> torch.dtype:
    """The dtype of a layer's arithmetic: autocast's where it is on, else the weight's; x's where that is quantized."""
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device_type)
    return weight_dtype(layer) or x.dtype
