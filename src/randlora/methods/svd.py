"""Adapters in the singular vectors of the base weight: the decomposition, made again at load and never saved."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from randlora.adapter import AdapterLayer, AdapterTuner
from randlora.adapter.kinds import StackedWeight
from randlora.adapter.placement import weight_device, weight_dtype
from randlora.adapter.quantized import quantized_format
from randlora.adapter.weights import layer_shape, read_weight
from randlora.adapter_config import AdapterConfig
from randlora.bases.dense import digest
from randlora.bases.spectral import DECOMPOSITION_VERSION, Factors, decompose
from randlora.errors import ConfigError, LayerError


@dataclass
class SvdConfig(AdapterConfig):
    """What the configs of such adapters share.

    Attributes:
        base_fingerprint: Hash of the adapted base weights, rounded to bfloat16, of which the singular vectors are;
            filled in. Loading an adapter onto other weights warns, since its coefficients then mean something else.
        decomposition: Version of the decomposition; filled in. An adapter without it has a version that took the
            weights in the dtype they were loaded in.
    """

    base_fingerprint: str | None = None
    decomposition: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decomposition not in (None, *range(1, DECOMPOSITION_VERSION + 1)):
            raise ConfigError(
                "decomposition",
                expected=f"an integer from 1 to {DECOMPOSITION_VERSION}",
                got=repr(self.decomposition),
                hint="a newer randlora wrote the adapter: upgrade; or its config is damaged",
            )


class SvdLayer(AdapterLayer):
    """A layer with adapters that are frozen singular vectors and trained coefficients.

    The checkpoint holds the coefficients only: an adapter belongs to the exact base weights it was trained on.

    Attributes:
        factors: Adapter name -> the singular vectors it uses.
    """

    other_param_names = (*AdapterLayer.other_param_names, "factors")

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.factors: dict[str, Factors] = {}

    def decompose_base(self, adapter_name: str, k: int, version: int | None) -> Factors:
        """Decompose the base weight for an adapter, and keep the factors in the weight's dtype.

        Args:
            adapter_name: Its name.
            k: Number of singular vectors.
            version: Its config's `decomposition`.
        """
        weight = read_weight(self.get_base_layer())
        version = version or 1
        factors = decompose(weight, k, version)
        stored = self.factors[adapter_name] = Factors(*(part.to(weight.dtype) for part in factors))
        return factors if version > 1 else stored

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SvdLayer":
        super()._apply(fn, recurse)
        base = self.get_base_layer()
        options: dict[str, Any] = {"device": weight_device(base), "dtype": weight_dtype(base)}
        if options["device"].type != "meta":  # they follow the weight, but are in no state dict to be filled from
            self.factors = {
                name: Factors(*(part.to(**options) for part in factors)) for name, factors in self.factors.items()
            }
        return self

    def factors_like(self, adapter_name: str, like: Tensor) -> Factors:
        """An adapter's singular vectors on a tensor's device and in its dtype."""
        options: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        return Factors(*(part.to(**options) for part in self.factors[adapter_name]))

    def left_rows(self, adapter_name: str, index: Tensor, like: Tensor) -> Tensor:
        """Rows of U by their numbers, on a tensor's device and in its dtype; the others are not converted."""
        return self.factors[adapter_name].U.to(like.device)[index].to(like.dtype)


class SvdTuner(AdapterTuner):
    """What the tuners of such adapters have in common: the base weights must be there and untouched."""

    @classmethod
    def matched_layers(cls, config: Any, model: nn.Module) -> dict[str, nn.Module]:
        """See `AdapterTuner.matched_layers`; a layer must have as many singular vectors as a method's r asks for."""
        layers = super().matched_layers(config, model)
        for name, layer in layers.items():
            shape = layer_shape(layer)
            if getattr(config, "r", 0) > min(shape):
                raise LayerError(
                    f"module {name!r}",
                    expected=f"sides of at least r={config.r}",
                    got=str(shape),
                    hint="lower r, or name it in exclude_modules",
                )
        return layers

    def _prepare_layers(self, config: Any, layers: dict[str, nn.Module]) -> None:
        """Check every matched layer before the first weight is decomposed, and whether they are the recorded ones.

        Raises:
            LayerError: A weight is not in memory, or holds another adapter's update.
        """
        hashes, formats = [], set()
        for name, base_layer in layers.items():
            layer = self.model.get_submodule(_module_name(name, base_layer))
            if isinstance(layer, BaseTunerLayer) and layer.merged:
                raise LayerError(
                    f"module {name!r}",
                    expected="the base weight itself",
                    got=f"merged adapters {layer.merged_adapters}",
                    hint="unmerge first",
                )
            if weight_device(base_layer).type == "meta":
                raise LayerError(f"module {name!r}", expected="a weight in memory, for its SVD", got="a meta tensor")
            weight, quantized = read_weight(base_layer).detach(), quantized_format(base_layer)
            formats.add(quantized.name if quantized else str(weight.dtype).removeprefix("torch."))
            hashes.append(digest(name, weight.to("cpu", torch.bfloat16).view(torch.int16)))
        found = digest("".join(hashes))
        if config.base_fingerprint is None:
            config.decomposition = DECOMPOSITION_VERSION
        elif complaint := _complaint(config, found, formats):
            warnings.warn(f"{type(self).__name__}: {complaint}", stacklevel=2)
        config.base_fingerprint = found


def _module_name(name: str, base_layer: nn.Module) -> str:
    """The module that a matched layer, or parameter, is in."""
    return name.removesuffix(f".{base_layer.name}") if isinstance(base_layer, StackedWeight) else name


def _complaint(config: SvdConfig, found: str, formats: set[str]) -> str:
    """What a user is told whose base weights are not those of an adapter; empty if they are."""
    kinds = " and ".join(sorted(formats))
    if config.base_fingerprint != found:
        return (
            f"these are not the base weights that the adapter was made for, rounded to bfloat16 (they are in {kinds}): "
            "their singular vectors differ, and the adapter loses part of what it learned, all on another model, much "
            "on a quantized one, a few hundredths on a float32 model loaded in float16; there put the adapter on the "
            "model in float32 or bfloat16, and convert or quantize it then"
        )
    if config.decomposition is None and formats != {"float32"}:
        return (
            f"an earlier version of randlora made this adapter for weights of one dtype; if that was not {kinds}, it "
            "loses up to half of what it learned: load the base model in the dtype of the training"
        )
    return ""
