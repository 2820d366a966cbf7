"""Parameters of a module that does more with them than one product: attention, stacked experts."""

from typing import Any

from torch import Tensor, nn

from randlora.adapter.kinds.kind import LayerKind


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


class StackedKind(LayerKind):
    """A stack of matrices, or one; its module runs with W₀ + ΔW in place of it."""

    types = (StackedWeight,)
    weight_is_read = True

    def refusal(self, layer: Any) -> str:
        """See `LayerKind`."""
        refusal = super().refusal(layer)
        wrong_sides = refusal in ("", "a weight that holds numbers") and len(layer.shape) != 3
        return "a parameter with two or three sides" if wrong_sides else refusal

    def takes_dropout(self, layer: nn.Module) -> bool:  # noqa: ARG002 - LayerKind's signature
        """No: the module's input is not the update's."""
        return False

    def stack(self, layer: Any) -> tuple[int, ...]:
        """(count,)."""
        return (layer.shape[0],)

    def shape(self, layer: Any) -> tuple[int, int]:
        """(rows, columns) of each matrix."""
        return layer.shape[1], layer.shape[2]
