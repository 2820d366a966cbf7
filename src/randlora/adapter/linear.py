"""The adapted linear layer: choose how to apply the update, and apply it."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from randlora.adapter.layer import RandLoraLayer, compute_dtype
from randlora.adapter.weights import read_weight
from randlora.bases import Bases
from randlora.config import RandLoraConfig
from randlora.update import choose_strategy, factored_update, folded_linear


class RandLoraLinear(nn.Module, RandLoraLayer):
    """An `nn.Linear` or `Conv1D` with RandLoRA adapters."""

    base_layer: Any
    # BaseTunerLayer's, which nn.Module's __getattr__ hides from type checkers.
    active_adapters: Any
    get_base_layer: Any

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: RandLoraConfig,
        r: int,
        alpha: float,
        bases: Bases,
    ) -> None:
        nn.Module.__init__(self)
        RandLoraLayer.__init__(self, base_layer)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, r, alpha, bases)

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
        if self.disable_adapters and self.merged:
            self.unmerge()
        active = [name for name in self.active_adapters if name in self.randlora_lambda]
        if self.disable_adapters or self.merged or not active:
            return self.base_layer(x, *args, **kwargs)
        if len(active) == 1 and not args and not kwargs and self._strategy(active[0], x) == "folded":
            return self._folded(active[0], x)
        result = self.base_layer(x, *args, **kwargs)
        for name in active:
            result = result + self._update(name, x).to(result.dtype)
        return result

    def _strategy(self, name: str, x: Tensor) -> str:
        """The adapter's strategy; `folded` only where the base layer is no more than a frozen matrix and a bias."""
        strategy = self.strategy[name]
        dropping = self.training and not isinstance(self.randlora_dropout[name], nn.Identity)
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

    def _update(self, name: str, x: Tensor) -> Tensor:
        dtype = compute_dtype(x, read_weight(self.get_base_layer()))
        lambda_, gamma = self.trained(name)
        dropout: nn.Module = self.randlora_dropout[name]
        x = dropout(x.to(dtype))
        with torch.autocast(x.device.type, enabled=False):
            if self.strategy[name] == "reference":
                return F.linear(x, self._delta_weight(name).to(dtype))
            bases = self.bases_tensors(name, x.device, dtype)
            return factored_update(x, lambda_, gamma, self.update_spec(name), bases)

    def extra_repr(self) -> str:
        """Adapters with their r and n."""
        return ", ".join(f"{name}: r={r}, num_bases={self.num_bases[name]}" for name, r in self.r.items())
