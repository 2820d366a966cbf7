"""Adapters on convolutions: ΔW on the kernel flattened to (out, in/groups · k · k)."""

from typing import Any

from torch import Tensor, nn

from randlora.adapter.base_layer import AdapterLayer
from randlora.adapter.weights import as_stored

_FORWARDS = (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)


class ConvolutionLayer(AdapterLayer):
    """An `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d` with adapters of one method, whatever stride, padding or groups."""

    base_types = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

    @classmethod
    def refusal(cls, layer: nn.Module) -> str:
        """What a layer without adapters would have to be for this class to adapt it; empty if it can."""
        refusal = super().refusal(layer)
        if not refusal and type(layer).forward not in _FORWARDS:
            return "a convolution that computes what torch's own does"
        return refusal

    def _add_updates(self, adapter_names: list[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not adapter_names or self._base_has_hooks() or any(map(self._drops, adapter_names)):
            return super()._add_updates(adapter_names, x, *args, **kwargs)
        return self.base_layer._conv_forward(x, self._folded(adapter_names), self.base_layer.bias)

    def _product(self, adapter_name: str, x: Tensor) -> Tensor:
        base_layer = self.get_base_layer()
        kernel = as_stored(base_layer, self._delta_weight(adapter_name))
        return base_layer._conv_forward(x, kernel.to(x.dtype), None)
