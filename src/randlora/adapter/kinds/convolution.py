"""Convolutions: ΔW on the kernel flattened to (out, in/groups · k · k)."""

from typing import Any

from torch import Tensor, nn

from randlora.adapter.kinds.kind import Adapter, LayerKind


class ConvolutionKind(LayerKind):
    """`nn.Conv1d`, `nn.Conv2d` and `nn.Conv3d`, whatever stride, padding or groups."""

    types = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    forwards = (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)

    def refusal(self, layer: Any) -> str:
        """See `LayerKind`; a subclass with a forward of its own cannot be adapted."""
        refusal = super().refusal(layer)
        if not refusal and not self.is_plain(layer):
            return "a convolution that computes what torch's own does"
        return refusal

    def full_shape(self, layer: Any) -> tuple[int, ...]:
        """The kernel's."""
        return tuple(layer.weight.shape)

    def forward(self, adapter: Adapter, adapter_names: list[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """One convolution with W₀ + ΔW, where the base layer is called for no more than that."""
        if not adapter_names or adapter.base_has_hooks() or any(map(adapter.drops, adapter_names)):
            return super().forward(adapter, adapter_names, x, *args, **kwargs)
        base = adapter.base_layer
        return base._conv_forward(x, adapter.folded(adapter_names), base.bias)

    def apply_delta(self, adapter: Adapter, adapter_name: str, x: Tensor) -> Tensor:
        """A second convolution."""
        base = adapter.get_base_layer()
        kernel = self.stored(base, adapter.delta_weight(adapter_name))
        return base._conv_forward(x, kernel.to(x.dtype), None)
