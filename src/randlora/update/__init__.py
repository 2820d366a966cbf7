"""The arithmetic of ΔW: tensors in, tensors out; no modules, no configuration. See README.md beside this file."""

from randlora.update.dispatch import choose_strategy
from randlora.update.factored import factored_update
from randlora.update.folded import folded_linear
from randlora.update.operators import Operator, UpdateSpec, delta_weight, make_operator
from randlora.update.reference import reference_delta_weight

__all__ = [
    "Operator",
    "UpdateSpec",
    "choose_strategy",
    "delta_weight",
    "factored_update",
    "folded_linear",
    "make_operator",
    "reference_delta_weight",
]
