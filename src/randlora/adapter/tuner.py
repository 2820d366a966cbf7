"""The PEFT tuner of RandLoRA: each layer's rank, alpha and bases."""

from typing import Any, cast

from peft.utils.other import get_pattern_key
from torch import nn

from randlora.adapter.base_tuner import AdapterTuner
from randlora.adapter.bases_choice import resolve_bases
from randlora.adapter.kinds import RandLoraConvolution, RandLoraEmbedding, RandLoraParameter
from randlora.adapter.layer import RandLoraLayer
from randlora.adapter.linear import RandLoraLinear
from randlora.adapter.weights import LINEARS
from randlora.bases import Bases, StoredBases
from randlora.config import RandLoraConfig
from randlora.errors import ConfigError


class RandLoraTuner(AdapterTuner):
    """Puts RandLoRA adapters into a model; used through `peft.get_peft_model` and `peft.PeftModel`."""

    prefix = RandLoraConfig.prefix
    tuner_layer_cls = RandLoraLayer
    layer_classes = (RandLoraLinear, RandLoraConvolution, RandLoraEmbedding, RandLoraParameter)

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        """Check every matched layer and settle the bases before the first module is replaced."""
        for name, layer in self.matched_layers(peft_config, model).items():
            if peft_config.bases == "peft" and not isinstance(layer, LINEARS):
                raise ConfigError("bases", expected="other than 'peft', which has linear layers only", got=name)
        shapes = self.matched_shapes(peft_config, model)
        self._bases: Bases = resolve_bases(peft_config, list(shapes.values()))
        for shape in shapes.values():
            self._bases.reserve(peft_config.r, min(shape), max(shape))

    def _create_and_replace(self, peft_config: Any, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        if isinstance(self._bases, StoredBases):
            # Part of the state dict, under the name that the converter writes.
            self.randlora_stored = getattr(self, "randlora_stored", nn.ModuleDict())
            self.randlora_stored[adapter_name] = self._bases
        super()._create_and_replace(peft_config, adapter_name, *args, **kwargs)

    def _layer_options(self, config: RandLoraConfig, key: str) -> dict[str, Any]:
        ranks, alphas = config.rank_pattern, config.alpha_pattern
        return {
            "r": ranks.get(get_pattern_key(ranks.keys(), key), config.r),
            "alpha": alphas.get(get_pattern_key(alphas.keys(), key), cast("float", config.alpha)),
            "bases": self._bases,
        }
