"""Read and write the weight of a layer, adapted or not, as its kind does."""

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from randlora.adapter.kinds import kind_of


def innermost(layer: nn.Module) -> nn.Module:
    """The layer inside adapters, or the layer itself."""
    return layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer


def is_plain(layer: nn.Module) -> bool:
    """Whether the forward of a layer without adapters is torch's own, or as good; see `LayerKind`."""
    return kind_of(layer).is_plain(layer)


def layer_shape(layer: nn.Module) -> tuple[int, int]:
    """(rows, columns) of a layer's matrix: (out, in) of a linear layer."""
    base = innermost(layer)
    return kind_of(base).shape(base)


def full_shape(layer: nn.Module) -> tuple[int, ...]:
    """`layer_shape` with what it hides: the sides of a convolution's kernel, the number of matrices of a stack."""
    base = innermost(layer)
    return kind_of(base).full_shape(base)


def stack_shape(layer: nn.Module) -> tuple[int, ...]:
    """(count,) of a stack of matrices, () of a single one."""
    base = innermost(layer)
    return kind_of(base).stack(base)


def read_weight(layer: nn.Module) -> Tensor:
    """The weight of a layer without adapters as (rows, columns), with the stack before it where there is one.

    A view where the memory allows; a quantized weight is dequantized.

    Raises:
        LayerError: The format of a quantized weight cannot be read.
    """
    return kind_of(layer).read(layer)


def write_weight(layer: nn.Module, weight: Tensor) -> None:
    """Overwrite the weight, given as `read_weight` returns it, keeping its dtype, its memory and its ties.

    Args:
        layer: The base layer.
        weight: New values; rounded to the layer's dtype, or quantized format.

    Raises:
        LayerError: The format of a quantized weight cannot be written.
    """
    kind_of(layer).write(layer, weight)
