"""Adapters on the parameters of a module that does more with them than one product: attention, stacked experts.

The module is called as it is, with W₀ + ΔW in place of the parameters. Each adapted parameter has an adapter layer
of its own, beside the module, which holds the trained tensors and is what PEFT switches and deletes; merging goes by
the module.
"""

from contextlib import ExitStack
from typing import Any, NamedTuple, cast
from unittest.mock import patch

from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.func import functional_call

from randlora.adapter.base_layer import AdapterLayer
from randlora.adapter.merging import MergingLayer
from randlora.errors import RandLoraError, UpdateError


class _Projection(NamedTuple):
    """What is read of a linear layer that is not called."""

    weight: Tensor
    bias: Tensor | None


class AdaptedModule(nn.Module, MergingLayer):
    """A module with adapters on some of its parameters.

    Reading an adapted parameter gives W₀ + ΔW too, so that code which reads it past the module's forward (the fast path
    of nn.TransformerEncoderLayer) is right. The operations on adapters other than merging are those of `updates`, which
    PEFT finds itself.

    Args:
        base_layer: The module.

    Attributes:
        updates: Name of the parameter, with hyphens for dots -> its adapter layer.
    """

    adapter_layer_names = ()
    other_param_names = ()
    base_layer: nn.Module
    updates: nn.ModuleDict

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.updates = nn.ModuleDict({})

    def add_update(self, parameter: str, layer: AdapterLayer) -> None:
        """Put an adapter layer on a parameter."""
        self.updates[parameter.replace(".", "-")] = layer

    def update_of(self, parameter: str) -> AdapterLayer | None:
        """The adapter layer of a parameter."""
        key = parameter.replace(".", "-")
        return cast("AdapterLayer", self.updates[key]) if key in self.updates else None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output with W₀ + ΔW in place of the adapted parameters."""
        layers = {name.replace("-", "."): cast("AdapterLayer", layer) for name, layer in self.updates.items()}
        if isinstance(self.base_layer, FullyShardedDataParallel):  # gathers the weights later than they are needed
            raise UpdateError(
                type(self.base_layer.module).__name__,
                expected="the module around it as FSDP's unit",
                got="this one, whose parameters are adapted",
                hint="leave its class out of the wrap policy",
            )
        weights = {name: layer.weight for name, layer in layers.items() if layer._adapters_to_apply()}
        with ExitStack() as views:
            for name in list(weights):
                path, _, attribute = name.rpartition(".")
                module = self.base_layer.get_submodule(path)
                if attribute in module.__dict__:  # FSDP's view of a gathered parameter, which hides it
                    views.enter_context(patch.dict(module.__dict__, {attribute: weights.pop(name)}))
            return functional_call(self.base_layer, weights, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("base_layer", "updates"):
                raise
        layer = self.update_of(name)
        return getattr(self.base_layer, name) if layer is None else layer.weight

    @property
    def out_proj(self) -> Any:
        """The output projection of an attention module, for code that reads its weight and bias."""
        layer = self.update_of("out_proj.weight")
        projection = cast("Any", self.base_layer).out_proj
        return projection if layer is None else _Projection(layer.weight, projection.bias)

    def set_scale(self, adapter: str, scale: float) -> None:
        """Nothing: the adapter layers of the parameters, which are modules too, have the scales."""

    def scale_layer(self, scale: float) -> None:
        """As `set_scale`."""

    def unscale_layer(self, scale: float | None = None) -> None:
        """As `set_scale`."""

    @property
    def active_adapter(self) -> str | list[str]:
        """Those of the adapter layers of the parameters, which PEFT sets; all have the same."""
        layers: list[Any] = self._layers()
        active: str | list[str] = layers[0].active_adapter
        return active

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter from the adapter layers, so that the module knows at once which is active then."""
        layers: list[Any] = self._layers()
        for layer in layers:
            layer.delete_adapter(adapter_name)

    @property
    def merged_adapters(self) -> list[str]:
        """Adapters that are in the base weights."""
        return list(dict.fromkeys(name for layer in self._layers() for name in layer.merged_adapters))

    def merge_refusal(self, adapter_names: list[str] | None, *, exact: bool) -> RandLoraError | None:
        """See `AdapterLayer.merge_refusal`: the first of the layers in `updates`."""
        refusals = (layer.merge_refusal(adapter_names, exact=exact) for layer in self._layers())
        return next((refusal for refusal in refusals if refusal is not None), None)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """See `AdapterLayer.merge`."""
        if refusal := self.merge_refusal(adapter_names, exact=safe_merge):
            raise refusal
        for layer in self._layers():
            layer.merge(adapter_names=adapter_names)

    def unmerge(self) -> None:
        """See `AdapterLayer.unmerge`."""
        for layer in self._layers():
            layer.unmerge()

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """PEFT's hook for unloading: the module without adapters.

        Args:
            merge: Add ΔW to its parameters first.
            safe_merge: See `AdapterLayer.merge`.
            adapter_names: See `AdapterLayer.merge`.
        """
        if merge:
            self.merge(safe_merge=safe_merge, adapter_names=adapter_names)
        return self.base_layer

    def _layers(self) -> list[AdapterLayer]:
        return [cast("AdapterLayer", layer) for layer in self.updates.values()]

    def _get_available_adapters(self) -> set[str]:
        return {name for layer in self._layers() for name in layer.adapter_dropout}
