"""Linear layers: torch's, `Conv1D` of transformers, which is stored the other way, and quantized ones."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from randlora.adapter.kinds.kind import Adapter, LayerKind
from randlora.adapter.quantized import is_torchao, quantized_format
from randlora.errors import LayerError

LINEARS = (nn.Linear, Conv1D)


class LinearKind(LayerKind):
    """y = x·Wᵀ + b. A layer may be quantized after the adapter was put on it, so that every use asks for its format."""

    types = LINEARS
    forwards = (nn.Linear.forward, Conv1D.forward)

    def fits(self, layer: nn.Module) -> bool:
        """Also the layers of packages that quantize, whatever their class."""
        return super().fits(layer) or quantized_format(layer) is not None

    def refusal(self, layer: Any) -> str:
        """See `LayerKind`; a quantized layer can be adapted."""
        return "" if quantized_format(layer) is not None else super().refusal(layer)

    def is_plain(self, layer: nn.Module) -> bool:
        """Also transformers' FalconLinear, which rounds between product and bias, and layers made to be quantized.

        torchao puts its weights into the layers that are there, which may have a forward of their own.
        """
        is_falcon = type(layer).__name__ == "FalconLinear"
        is_made_for_it = quantized_format(layer) is not None and not is_torchao(getattr(layer, "weight", None))
        return super().is_plain(layer) or is_falcon or is_made_for_it

    def shape(self, layer: Any) -> tuple[int, int]:
        """(out, in)."""
        if quantized_format(layer) is not None:
            return layer.out_features, layer.in_features
        out, inner = layer.weight.shape
        return (inner, out) if isinstance(layer, Conv1D) else (out, inner)

    def read(self, layer: Any) -> Tensor:
        """See `LayerKind`; a quantized weight is dequantized.

        Raises:
            LayerError: The format of a quantized weight cannot be read.
        """
        quantized = quantized_format(layer)
        if quantized is None:
            return layer.weight.T if isinstance(layer, Conv1D) else layer.weight
        if quantized.dequantize is None:
            raise LayerError(type(layer).__name__, expected="a weight that can be read", got=f"one in {quantized.name}")
        return quantized.dequantize(layer)

    def stored(self, layer: Any, matrix: Tensor) -> Tensor:
        """See `LayerKind`."""
        return matrix.T if isinstance(layer, Conv1D) and quantized_format(layer) is None else matrix

    @torch.no_grad()
    def write(self, layer: Any, matrix: Tensor) -> None:
        """See `LayerKind`; a quantized weight is rounded to its format.

        Raises:
            LayerError: The format of a quantized weight cannot be written.
        """
        quantized = quantized_format(layer)
        if quantized is None:
            super().write(layer, matrix)
            return
        if quantized.requantize is None:
            raise LayerError(type(layer).__name__, expected="a weight to write", got=f"one in {quantized.name}")
        quantized.requantize(layer, matrix)

    def apply_delta(self, adapter: Adapter, adapter_name: str, x: Tensor) -> Tensor:
        """The method's own product."""
        return adapter.product(adapter_name, x)
