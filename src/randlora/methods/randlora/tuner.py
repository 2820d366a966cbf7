"""The PEFT tuner of RandLoRA: each layer's rank, alpha and bases."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from randlora.adapter.base_tuner import AdapterTuner, check_adapter_name
from randlora.adapter.kinds import LINEARS
from randlora.adapter.targets import pattern_name
from randlora.adapter.weights import layer_shape
from randlora.bases import Bases, StoredBases
from randlora.errors import ConfigError
from randlora.methods.randlora.bases_choice import resolve_bases
from randlora.methods.randlora.config import RandLoraConfig, by_pattern
from randlora.methods.randlora.layer import RandLoraLayer
from randlora.methods.randlora.weighted_sum import check_linear, check_summable, fill_sum, sum_config


class RandLoraTuner(AdapterTuner):
    """Puts RandLoRA adapters into a model; used through `peft.get_peft_model` and `peft.PeftModel`."""

    prefix = RandLoraConfig.prefix
    tuner_layer_cls = RandLoraLayer

    def _prepare_layers(self, config: Any, layers: dict[str, nn.Module]) -> None:
        """Settle the bases."""
        for name, layer in layers.items():
            if config.bases == "peft" and not isinstance(layer, LINEARS):
                raise ConfigError("bases", expected="other than 'peft', which has linear layers only", got=name)
        shapes = {name: layer_shape(layer) for name, layer in layers.items()}
        ranks = {
            name: by_pattern(config.rank_pattern, pattern_name(name, layer), config.r) for name, layer in layers.items()
        }
        self._bases: Bases = resolve_bases(config, {name: (shape, ranks[name]) for name, shape in shapes.items()})
        for name, shape in shapes.items():
            self._bases.reserve(config.basis_sizes(shape, ranks[name]))

    def _create_and_replace(self, peft_config: Any, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        if isinstance(self._bases, StoredBases):
            # Part of the state dict, under the name that the converter writes.
            self.randlora_stored = getattr(self, "randlora_stored", nn.ModuleDict())
            self.randlora_stored[adapter_name] = self._bases
        super()._create_and_replace(peft_config, adapter_name, *args, **kwargs)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter, with its stored projections where it has some."""
        super().delete_adapter(adapter_name)
        stored = getattr(self, "randlora_stored", {})
        if adapter_name in stored:
            del stored[adapter_name]

    def _layer_options(self, config: RandLoraConfig, key: str) -> dict[str, Any]:
        return {
            "r": by_pattern(config.rank_pattern, key, config.r),
            "alpha": by_pattern(config.alpha_pattern, key, config.alpha),
            "strategy": by_pattern(config.strategy_pattern, key, config.strategy),
            "bases": self._bases,
        }

    def add_weighted_adapter(
        self,
        adapters: Sequence[str],
        weights: Sequence[float],
        adapter_name: str,
        combination_type: str = "linear",
    ) -> None:
        """Add an adapter whose ΔW is the weighted sum of others', exactly: it keeps a λ and a γ for each of them.

        Args:
            adapters: Names of adapters with the same bases; where two are on one layer, with the same r there.
            weights: A factor for each.
            adapter_name: Name of the new one, on every layer that one of them is on; the others stay.
            combination_type: "linear", the sum.

        Raises:
            ConfigError: A name is unknown or taken, a factor is no number, or the adapters cannot be summed.
        """
        check_adapter_name(adapter_name)
        check_linear(combination_type)
        configs = check_summable(self.peft_config, adapters, weights, adapter_name)
        config = sum_config(dict(zip(adapters, configs, strict=True)), self.model, terms=sum(c.terms for c in configs))
        self.peft_config[adapter_name] = config
        self.inject_adapter(self.model, adapter_name)
        for layer in (module for module in self.model.modules() if isinstance(module, RandLoraLayer)):
            if adapter_name in layer.scaling:
                fill_sum(layer, list(zip(adapters, weights, configs, strict=True)), adapter_name)
