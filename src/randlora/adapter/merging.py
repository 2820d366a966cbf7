"""Adding ΔW to the base weights and taking it off again: all that can go wrong is found before anything is written."""

import warnings
from contextlib import nullcontext
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge, onload_layer
from torch import Tensor, nn

from randlora.adapter.kinds import LINEARS
from randlora.adapter.quantized import quantized_format
from randlora.adapter.targets import outer_modules
from randlora.adapter.tied import TiedWeight, kept_ties, settle_untied, tied_layers
from randlora.adapter.weights import innermost, is_plain, read_weight, write_weight
from randlora.errors import ConfigError, LayerError, RandLoraError


class MergingLayer(BaseTunerLayer):
    """The part of an adapter layer that merges its `delta_weight(adapter_name)`; of a module, that of its layers."""

    adapter_dropout: nn.ModuleDict
    scaling: dict[str, float]
    merged_scaling: dict[str, float]
    tied_weight: TiedWeight | None = None
    delta_weight: Any

    @torch.no_grad()
    def merge_refusal(self, adapter_names: list[str] | None, *, exact: bool) -> RandLoraError | None:
        """The error of merging adapters, known before anything is written; None where they can be merged.

        Args:
            adapter_names: Which; None are the active ones.
            exact: Neither rounding to a quantized format nor values that are not finite are wanted.
        """
        base_layer = self.get_base_layer()
        if (refusal := _quantized_refusal(base_layer, exact=exact)) is not None or not exact:
            return refusal
        merged = read_weight(base_layer)
        for name in self.active_adapters if adapter_names is None else adapter_names:
            if name in self.adapter_dropout and name not in self.merged_adapters:
                merged = (merged + self.delta_weight(name).to(merged.device)).to(merged.dtype)
                if not torch.isfinite(merged).all():
                    return LayerError(
                        f"adapter {name!r}",
                        expected="finite merged weights",
                        hint=f"its {' or '.join(self.adapter_layer_names)} holds NaN or infinity, or is too large",
                    )
        return None

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add ΔW of adapters to the base weight.

        Args:
            safe_merge: Check before writing that the result is finite, and that it can be written: a quantized weight
                is rounded to its format, which a plain merge does with a warning.
            adapter_names: Which; None merges the active ones.

        Raises:
            LayerError: `safe_merge` found a value that is not finite, or the weight is quantized and cannot be
                written, for `safe_merge` not exactly; the weight is as it was.
        """
        if refusal := self.merge_refusal(adapter_names, exact=safe_merge):
            raise refusal
        for name in check_adapters_to_merge(self, adapter_names):
            if name in self.adapter_dropout:
                self._add_to_weight(self.delta_weight(name))
                self.merged_adapters.append(name)
                self.merged_scaling[name] = self.scaling[name]

    @torch.no_grad()
    def unmerge(self) -> None:
        """Subtract ΔW of every merged adapter; the weight comes back up to the rounding of its dtype.

        Where it was untied for the merge, the layer has the tied weight again.
        """
        if self.tied_weight is not None:
            self.tied_weight.restore()
            self.tied_weight = None
            self.merged_adapters.clear()
        scaling = self.scaling
        self.scaling = scaling | self.merged_scaling  # those that were merged, whatever has been set since
        while self.merged_adapters:
            name = self.merged_adapters.pop()
            if name in self.adapter_dropout:
                self._add_to_weight(-self.delta_weight(name))
        self.scaling = scaling

    def _add_to_weight(self, delta: Tensor) -> None:
        base_layer = self.get_base_layer()
        weight = read_weight(base_layer)
        if (quantized := quantized_format(base_layer)) is not None:
            warnings.warn(f"the sum of weight and update is rounded to {quantized.name}", stacklevel=4)
        write_weight(base_layer, weight + delta.to(weight.device))


def _quantized_refusal(layer: nn.Module, *, exact: bool) -> LayerError | None:
    """The error of a merge into a quantized weight that cannot be written, or not exactly; None where it can be."""
    quantized = quantized_format(layer)
    if quantized is None or (quantized.requantize is not None and not exact):
        return None
    hint = "load the model without quantization to merge into it, or keep the adapter unmerged"
    if quantized.requantize is not None:
        hint = f"without safe_merge the sum is rounded to the format; or {hint}"
    return LayerError(
        type(layer).__name__,
        expected="a weight that a sum can be written to" + (" exactly" if quantized.requantize is not None else ""),
        got=f"one in {quantized.name}",
        hint=hint,
    )


def _warn_untied(names: list[str], how: str) -> None:
    warnings.warn(f"{' and '.join(names)} have one weight, which is untied for the merge, {how}", stacklevel=3)


class MergingTuner(BaseTuner):
    """The part of a tuner that merges all its layers, or none."""

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """PEFT's, with every layer checked before the first weight is written.

        Args:
            adapter_names: Which; None merges the active ones.
            safe_merge: See `MergingLayer.merge`.

        Raises:
            ConfigError: There is no adapter of a name.
            LayerError: A weight cannot be merged into; none has been.
            UpdateError: The method's update is no weight.
        """
        self._check_merge(adapter_names, exact=safe_merge)
        if untied := self._untie(adapter_names):
            _warn_untied(untied, "until unmerge_adapter() ties them again")
        for layer in self._adapted():
            with onload_layer(layer):
                layer.merge(adapter_names=adapter_names)

    def unmerge_adapter(self) -> None:
        """PEFT's, with modules whose parameters are adapted as a whole, so that accelerate can load them."""
        for layer in self._adapted():
            with onload_layer(layer):
                layer.unmerge()

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> nn.Module:
        if merge:
            self._check_merge(adapter_names, exact=safe_merge)
        untied = self._untie(adapter_names) if merge else []
        if all(layer.tied_weight is None for layer in self._merging_layers()):  # untied by no earlier merge either
            return super()._unload_and_optionally_merge(merge, progressbar, adapter_names=adapter_names)
        with kept_ties(self.model), warnings.catch_warnings():
            # PEFT's, which writes into the config what is settled here.
            warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
            unloaded = super()._unload_and_optionally_merge(merge, progressbar, adapter_names=adapter_names)
        settle_untied(unloaded)
        if untied:
            _warn_untied(untied, "and each has its own now, which is saved")
        return unloaded

    def _adapted(self) -> list[MergingLayer]:
        return [module for _, module in outer_modules(self.model) if isinstance(module, MergingLayer)]

    def _check_merge(self, adapter_names: list[str] | None, *, exact: bool) -> None:
        if isinstance(adapter_names, str) or not set(adapter_names or ()) <= set(self.peft_config):
            known = ", ".join(map(repr, self.peft_config))
            raise ConfigError("adapter_names", expected=f"a list with names of {known}", got=repr(adapter_names))
        for layer in self._adapted():
            with onload_layer(layer) if exact else nullcontext():  # it reads the weights
                refusal = layer.merge_refusal(adapter_names, exact=exact)
            if refusal is not None:
                raise refusal
        self._warn_of_own_forwards(adapter_names)

    def _warn_of_own_forwards(self, adapter_names: list[str] | None) -> None:
        written = {id(layer.get_base_layer()) for layer in self._written(adapter_names)}
        for name, layer in outer_modules(self.model):
            base_layer = innermost(layer)
            if id(base_layer) in written and isinstance(base_layer, LINEARS) and not is_plain(base_layer):
                warnings.warn(
                    f"module {name!r}: {type(base_layer).__name__} has a forward of its own, which the update goes "
                    "through when it is merged; unmerged it is added to the output",
                    stacklevel=4,
                )
                return

    def _untie(self, adapter_names: list[str] | None) -> list[str]:
        """Give every layer that is merged into a weight of its own; returns the names of what had shared ones.

        Raises:
            LayerError: A weight cannot be copied; none has been.
        """
        layers = {layer.get_base_layer(): layer for layer in self._written(adapter_names)}
        tied = list(tied_layers(self.model, layers))
        for base_layer, _ in tied:
            layers[base_layer].tied_weight = TiedWeight(base_layer)
        return list(dict.fromkeys(name for _, names in tied for name in names))

    def _written(self, adapter_names: list[str] | None) -> list[MergingLayer]:
        """The layers, of modules with adapted parameters those of the parameters, that a merge writes into."""
        return [
            layer
            for layer in self._merging_layers()
            if not set(layer.active_adapters if adapter_names is None else adapter_names).isdisjoint(
                getattr(layer, "adapter_dropout", ())
            )
        ]

    def _merging_layers(self) -> list[MergingLayer]:
        layers: list[Any] = [module for module in self.model.modules() if isinstance(module, MergingLayer)]
        return layers

    def _check_merge_allowed(self) -> None:
        """PEFT's hook, which warns of tied weights: here they are untied."""
