"""The adapted linear layer: choose how to apply the update, and apply it."""

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from randlora.adapter.base_layer import compute_dtype
from randlora.adapter.layer import RandLoraLayer
from randlora.adapter.weights import read_weight
from randlora.update import choose_strategy, factored_update, folded_linear


class RandLoraLinear(RandLoraLayer):
    """An `nn.Linear` or `Conv1D` with RandLoRA adapters."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RandLoraLinear":
        super()._apply(fn, recurse)
        self._prepare_bases()  # the bases are no buffers of this module, yet they follow it to a device or dtype
        return self

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x·W₀ᵀ + b, plus the update of every active adapter.

        Args:
            x: (..., in).
            *args: Passed to the base layer.
            **kwargs: Passed to the base layer.
        """
        active = self._adapters_to_apply()
        if len(active) == 1 and not args and not kwargs and self._strategy(active[0], x) == "folded":
            return self._folded(active[0], x)
        return self._add_updates(active, x, *args, **kwargs)

    def _strategy(self, name: str, x: Tensor) -> str:
        """The adapter's strategy; `folded` only where the base layer is no more than a frozen matrix and a bias."""
        strategy = self.strategy[name]
        dropping = self.training and not isinstance(self.adapter_dropout[name], nn.Identity)
        base = self.base_layer
        wrapped = isinstance(base, BaseTunerLayer) or base._forward_hooks or base._forward_pre_hooks
        if strategy == "reference":
            return strategy
        # An input of another dtype is the base layer's to refuse, whatever the size of the batch.
        foreign = x.dtype != base.weight.dtype and not torch.is_autocast_enabled(x.device.type)
        if dropping or wrapped or foreign or hasattr(base, "_hf_hook") or base.weight.requires_grad:
            return "factored"
        if strategy != "auto":
            return strategy
        tokens = x.numel() // x.shape[-1]
        training = torch.is_grad_enabled() and self.randlora_gamma[name].requires_grad
        return choose_strategy(self.update_spec(name), tokens, training=training)

    def _folded(self, name: str, x: Tensor) -> Tensor:
        weight = read_weight(self.base_layer)
        dtype = compute_dtype(x, weight)
        bases = self.bases_tensors(name, x.device, dtype)
        with torch.autocast(x.device.type, enabled=False):
            lambda_, gamma = self.trained(name)
            return folded_linear(
                x.to(dtype), weight, self.base_layer.bias, lambda_, gamma, self.update_spec(name), bases
            )

    def _product(self, adapter_name: str, x: Tensor) -> Tensor:
        if self.strategy[adapter_name] == "reference":
            return super()._product(adapter_name, x)
        lambda_, gamma = self.trained(adapter_name)
        bases = self.bases_tensors(adapter_name, x.device, x.dtype)
        return factored_update(x, lambda_, gamma, self.update_spec(adapter_name), bases)

    def extra_repr(self) -> str:
        """Adapters with their r and n."""
        return ", ".join(f"{name}: r={r}, num_bases={self.num_bases[name]}" for name, r in self.r.items())
