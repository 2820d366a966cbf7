"""Kinds of layers: a new one is a `LayerKind` in a file here and its entry in `KINDS`; every method then has it."""

from torch import nn

from randlora.adapter.kinds.convolution import ConvolutionKind
from randlora.adapter.kinds.embedding import EmbeddingKind
from randlora.adapter.kinds.kind import LayerKind
from randlora.adapter.kinds.linear import LINEARS, LinearKind
from randlora.adapter.kinds.stacked import StackedKind, StackedWeight
from randlora.errors import LayerError

KINDS: tuple[LayerKind, ...] = (LinearKind(), ConvolutionKind(), EmbeddingKind(), StackedKind())

__all__ = ["KINDS", "LINEARS", "LayerKind", "LinearKind", "StackedWeight", "find_kind", "kind_of"]


def find_kind(layer: nn.Module) -> LayerKind | None:
    """The kind of a layer without adapters; None where there is none."""
    return next((kind for kind in KINDS if kind.fits(layer)), None)


def kind_of(layer: nn.Module) -> LayerKind:
    """The kind of a layer without adapters.

    Raises:
        LayerError: There is none.
    """
    kind = find_kind(layer)
    if kind is None:
        expected = " or ".join(layer_type.__name__ for each in KINDS for layer_type in each.types)
        raise LayerError(type(layer).__name__, expected=expected)
    return kind
