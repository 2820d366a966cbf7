"""RandLoRA's forward passes: on a linear layer in one step where that can be, on an embedding by rows."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from randlora.adapter.placement import compute_dtype
from randlora.adapter.quantized import quantized_format
from randlora.methods.randlora.state import RandLoraState
from randlora.update import (
    FOLDED,
    Plan,
    adapted_linear,
    choose_plan,
    delta_rows,
    factored_update,
    folded_weight,
    in_transform,
)

_FORWARDS = (nn.Linear.forward, Conv1D.forward)


class RandLoraLayer(RandLoraState):
    """A layer of any kind with RandLoRA adapters."""

    folded_weights: dict[Any, Any] | None = None
    """Folded weights by adapter and dtype, with the state they were folded from; None outside of `fold_once`."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "folded_weights"}  # a copy is outside

    def _add_updates(self, adapter_names: list[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if len(adapter_names) == 1 and not args and not kwargs and self._is_one_step(adapter_names[0], x):
            return self._adapted(adapter_names[0], x)
        return super()._add_updates(adapter_names, x, *args, **kwargs)

    def _is_one_step(self, name: str, x: Tensor) -> bool:
        """Whether layer and update run as one step: where the base layer is a frozen matrix and a bias, no more."""
        base = self.base_layer
        quantized = quantized_format(base)
        if type(base).forward not in _FORWARDS and quantized is None:  # first: other kinds end here
            return False
        if self._by_delta_weight(name) or self.drops(name) or self.base_has_hooks():
            return False
        if quantized is not None:  # whose own product is the better one for the few rows that are not folded for
            dtype = compute_dtype(x, base)
            plain = x.dtype == dtype and quantized.multiplies_as_read(base, dtype)
            return plain and set(self._plan(name, x, dtype)) == {FOLDED}
        # An input of another dtype is the base layer's to refuse, whatever the size of the batch.
        foreign = x.dtype != base.weight.dtype and not torch.is_autocast_enabled(x.device.type)
        return not foreign and not base.weight.requires_grad

    def _plan(self, name: str, x: Tensor, dtype: torch.dtype) -> Plan:
        strategy = self.strategy[name]
        if strategy != "auto":
            return Plan(strategy, strategy)
        return choose_plan(self.form(name, x.device, dtype), self.update_spec(name), x.numel() // x.shape[-1])

    def _adapted(self, name: str, x: Tensor) -> Tensor:
        base = self.base_layer
        dtype = compute_dtype(x, base)
        plan, spec, form = self._plan(name, x, dtype), self.update_spec(name), self.form(name, x.device, dtype)
        lambda_, gamma = self.diagonals(name)
        weight = self.kind.read(base) if quantized_format(base) is None else partial(self.kind.read, base)
        with torch.autocast(x.device.type, enabled=False):
            held = None
            if self.folded_weights is not None and isinstance(weight, Tensor) and not torch.compiler.is_compiling():
                held = self._held_weight(self.folded_weights, (name, dtype), weight, lambda_, gamma)
            beside = self._beside(name, dtype)
            return adapted_linear(x.to(dtype), weight, base.bias, lambda_, gamma, spec, form, plan, held, beside)

    def _beside(self, _name: str, _dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """A and B of a product of trained matrices that a linear layer adds to the update in the same step."""
        return None

    def _held_weight(self, held: dict[Any, Any], key: tuple[str, torch.dtype], *parts: Tensor) -> Tensor:
        name, dtype = key
        spec = self.update_spec(name)
        state = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in parts], spec
        if key not in held or held[key][0] != state:
            weight, lambda_, gamma = parts
            form = self.form(name, weight.device, dtype)
            # A first use inside inference_mode must not make the weight unusable for training.
            with torch.inference_mode(mode=False), torch.no_grad():
                folded = folded_weight(weight, spec, form, lambda_, gamma).contiguous()
            # The parts are held too, so that no other tensor comes to lie where they are.
            held[key] = state, folded, [t.detach() for t in parts]
        kept: Tensor = held[key][1]
        return kept

    def _by_delta_weight(self, adapter_name: str) -> bool:
        """Whether the update is a product with ΔW as a whole, by torch's own operations."""
        return self.strategy[adapter_name] == "reference" or in_transform()

    def product(self, adapter_name: str, x: Tensor) -> Tensor:
        """See `AdapterLayer`; without forming ΔW, by the operator of the bases."""
        if self._by_delta_weight(adapter_name):
            return super().product(adapter_name, x)
        lambda_, gamma = self.diagonals(adapter_name)
        form = self.form(adapter_name, x.device, x.dtype)
        return factored_update(x, lambda_, gamma, self.update_spec(adapter_name), form)

    def rows(self, adapter_name: str, index: Tensor) -> Tensor:
        """See `AdapterLayer`; only the rows looked up are formed."""
        if self._rows_by_delta_weight(adapter_name):
            return super().rows(adapter_name, index)
        lambda_, gamma = self.diagonals(adapter_name)
        form = self.form(adapter_name, index.device, self.get_base_layer().weight.dtype)
        return delta_rows(index, self.update_spec(adapter_name), form, lambda_, gamma)

    def _rows_by_delta_weight(self, adapter_name: str) -> bool:
        """Whether rows are taken from ΔW as a whole; a table with fewer rows than columns is small."""
        return self.strategy[adapter_name] == "reference" or not self.small_is_input
