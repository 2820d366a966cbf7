"""Adapters in the singular vectors of the base weight: the decomposition, made again at load and never saved."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from randlora.adapter import AdapterLayer, AdapterTuner
from randlora.adapter.weights import innermost, layer_shape, read_weight, weight_device
from randlora.adapter_config import AdapterConfig
from randlora.bases.dense import digest
from randlora.bases.spectral import Factors, decompose
from randlora.errors import LayerError


@dataclass
class SvdConfig(AdapterConfig):
    """What the configs of such adapters share.

    Attributes:
        base_fingerprint: Hash of the adapted base weights, rounded to bfloat16; filled in. Loading an adapter onto
            other weights warns, since its coefficients then mean something else.
    """

    base_fingerprint: str | None = None


class SvdLayer(AdapterLayer):
    """A linear layer with adapters that are frozen singular vectors and trained coefficients.

    The checkpoint holds the coefficients only: an adapter belongs to the exact base weights it was trained on.

    Attributes:
        factors: Adapter name -> the singular vectors it uses.
    """

    other_param_names = (*AdapterLayer.other_param_names, "factors")

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.factors: dict[str, Factors] = {}

    def decompose_base(self, adapter_name: str, k: int) -> Factors:
        """Decompose the base weight for an adapter."""
        factors = self.factors[adapter_name] = decompose(read_weight(self.get_base_layer()), k)
        return factors

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SvdLayer":
        super()._apply(fn, recurse)
        self.factors = {name: Factors(*map(fn, factors)) for name, factors in self.factors.items()}
        return self

    def factors_like(self, adapter_name: str, like: Tensor) -> Factors:
        """An adapter's singular vectors on a tensor's device and in its dtype."""
        options: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        return Factors(*(part.to(**options) for part in self.factors[adapter_name]))


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

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        """Check every matched layer before the first weight is decomposed, and whether they are the recorded ones.

        Raises:
            LayerError: A weight is not in memory, or holds another adapter's update.
        """
        hashes = []
        for name in self.matched_shapes(peft_config, model):
            layer = model.get_submodule(name)
            base_layer = innermost(layer)
            if isinstance(layer, BaseTunerLayer) and layer.merged:
                raise LayerError(
                    f"module {name!r}",
                    expected="the base weight itself",
                    got=f"merged adapters {layer.merged_adapters}",
                    hint="unmerge first",
                )
            if weight_device(base_layer).type == "meta":
                raise LayerError(f"module {name!r}", expected="a weight in memory, for its SVD", got="a meta tensor")
            hashes.append(digest(name, read_weight(base_layer).detach().to("cpu", torch.bfloat16).view(torch.int16)))
        found = digest("".join(hashes))
        if peft_config.base_fingerprint not in (None, found):
            warnings.warn(
                f"{type(self).__name__}: these are not the base weights that the adapter was made for; its singular "
                "vectors, and so its update, will differ",
                stacklevel=2,
            )
        peft_config.base_fingerprint = found
