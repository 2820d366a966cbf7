"""The arithmetic of ΔW: tensors in, tensors out; no modules, no configuration. See README.md beside this file."""

from randlora.update.dispatch import Plan, choose_plan
from randlora.update.factored import factored_update
from randlora.update.linear import adapted_linear
from randlora.update.once import in_transform
from randlora.update.operators import Operator, UpdateSpec, delta_rows, delta_weight, folded_weight, make_operator
from randlora.update.reference import reference_delta_weight

__all__ = [
    "Operator",
    "Plan",
    "UpdateSpec",
    "adapted_linear",
    "choose_plan",
    "delta_rows",
    "delta_weight",
    "factored_update",
    "folded_weight",
    "in_transform",
    "make_operator",
    "reference_delta_weight",
]
