"""Adding ΔW to the base weights and taking it off again: all that can go wrong is found before anything is written."""

import warnings
from contextlib import nullcontext
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge, onload_layer
from torch import Tensor, nn

from randlora.adapter.quantized import quantized_format
from randlora.adapter.targets import outer_modules
from randlora.adapter.weights import innermost, read_weight, write_weight
from randlora.errors import ConfigError, LayerError, RandLoraError


class MergingLayer(BaseTunerLayer):
    """The part of an adapter layer that merges its `_delta_weight(adapter_name)`; of a module, that of its layers."""

    adapter_dropout: nn.ModuleDict
    _delta_weight: Any

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
                merged = (merged + self._delta_weight(name).to(merged.device)).to(merged.dtype)
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
                self._add_to_weight(self._delta_weight(name))
                self.merged_adapters.append(name)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Subtract ΔW of every merged adapter; the weight comes back up to the rounding of its dtype."""
        while self.merged_adapters:
            name = self.merged_adapters.pop()
            if name in self.adapter_dropout:
                self._add_to_weight(-self._delta_weight(name))

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
        return super()._unload_and_optionally_merge(merge, progressbar, adapter_names=adapter_names)

    def _adapted(self) -> list[MergingLayer]:
        return [module for _, module in outer_modules(self.model) if isinstance(module, MergingLayer)]

    def _check_merge(self, adapter_names: list[str] | None, *, exact: bool) -> None:
        if isinstance(adapter_names, str) or not set(adapter_names or ()) <= set(self.peft_config):
            known = ", ".join(map(repr, self.peft_config))
            raise ConfigError("adapter_names", expected=f"a list with names of {known}", got=repr(adapter_names))
        self._check_merge_allowed()
        for layer in self._adapted():
            with onload_layer(layer) if exact else nullcontext():  # it reads the weights
                refusal = layer.merge_refusal(adapter_names, exact=exact)
            if refusal is not None:
                raise refusal

    def _check_merge_allowed(self) -> None:
        """PEFT's hook before a merge: refuse to write into a weight that another module reads too (tied embeddings).

        Raises:
            LayerError: Merging would change what the other module computes.
        """
        readers: dict[int, dict[int, str]] = {}  # by parameter: what reads it, an adapted layer as one
        modules = dict(self.model.named_modules(remove_duplicate=False))
        for name, module in modules.items():
            reader = f"{name}.".partition(".base_layer.")[0].removesuffix(".")
            for parameter in module.parameters(recurse=False):
                readers.setdefault(id(parameter), {})[id(modules[reader])] = reader
        for layer in modules.values():
            weight = getattr(innermost(layer), "weight", None) if isinstance(layer, MergingLayer) else None
            names = list(readers.get(id(weight), {}).values())
            if len(names) > 1:
                raise LayerError(
                    f"module {names[0]!r}",
                    expected="a weight of its own, to merge into",
                    got=f"one that {names[1]!r} has too",
                    hint="load the model with tie_word_embeddings=False, or keep the adapter unmerged",
                )
