"""Adapters in the singular vectors of the base weight: the decomposition, made again at load and never saved."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from randlora.adapter import AdapterLayer, AdapterTuner
from randlora.adapter.weights import innermost, read_weight, weight_device
from randlora.adapter_config import AdapterConfig
from randlora.bases.dense import digest
from randlora.errors import LayerError


class Factors(NamedTuple):
    """U (out, k), σ (k) and V (in, k) of W₀ ≈ U·diag(σ)·Vᵀ."""

    U: Tensor
    sigma: Tensor
    V: Tensor


def decompose(weight: Tensor, k: int) -> Factors:
    """The k largest singular values of a weight and their vectors, in the weight's dtype.

    Computed in float64, so that the same weight gives the same vectors, to the precision of float32, on every
    device; of each pair (u, v), which is determined up to a common sign, the largest entry of u is positive. Vectors
    of equal singular values are not determined.

    Args:
        weight: W₀ (out, in).
        k: At most min(out, in).
    """
    U, sigma, Vh = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    largest = U.gather(0, U.abs().argmax(dim=0, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0)
    return Factors(*(part.to(weight.dtype) for part in ((U * signs)[:, :k], sigma[:k], (Vh.T * signs)[:, :k])))


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

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        """Check every matched layer before the first weight is decomposed, and whether they are the recorded ones.

        Raises:
            LayerError: A weight is not in memory, or holds another adapter's update.
        """
        hashes = []
        for name in self.matched_shapes(peft_config, model):
            layer = model.get_submodule(name)
            if isinstance(layer, BaseTunerLayer) and layer.merged:
                raise LayerError(
                    f"module {name!r}",
                    expected="the base weight itself",
                    got=f"merged adapters {layer.merged_adapters}",
                    hint="unmerge first",
                )
            base_layer = innermost(layer)
            if weight_device(base_layer).type == "meta":
                raise LayerError(f"module {name!r}", expected="a weight in memory, for its SVD", got="a meta tensor")
            weight = read_weight(base_layer)
            hashes.append(digest(name, weight.detach().to("cpu", torch.bfloat16).view(torch.int16)))
        found = digest("".join(hashes))
        if peft_config.base_fingerprint not in (None, found):
            warnings.warn(
                f"{type(self).__name__}: these are not the base weights that the adapter was made for; its singular "
                "vectors, and so its update, will differ",
                stacklevel=2,
            )
        peft_config.base_fingerprint = found
