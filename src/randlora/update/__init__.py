"""The arithmetic of ΔW: tensors in, tensors out; no modules, no configuration. See README.md beside this file."""

from randlora.update.dense import DenseForm, SparseForm
from randlora.update.dispatch import FOLDED, Plan, choose_plan
from randlora.update.factored import factored_update
from randlora.update.linear import adapted_linear
from randlora.update.once import in_transform
from randlora.update.operators import Form, Operator, Sizes, UpdateSpec, delta_rows, delta_weight, folded_weight
from randlora.update.reference import reference_delta_weight
from randlora.update.structured import StructuredForm

__all__ = [
    "FOLDED",
    "DenseForm",
    "Form",
    "Operator",
    "Plan",
    "Sizes",
    "SparseForm",
    "StructuredForm",
    "UpdateSpec",
    "adapted_linear",
    "choose_plan",
    "delta_rows",
    "delta_weight",
    "factored_update",
    "folded_weight",
    "in_transform",
    "reference_delta_weight",
]
