"""The PEFT tuner: which layers get an adapter, with which rank and bases."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, _maybe_include_all_linear_layers
from peft.utils import TRANSFORMERS_MODELS_TO_RANDLORA_TARGET_MODULES_MAPPING
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from randlora.adapter.bases_choice import resolve_bases
from randlora.adapter.checkpoint import check_state_dict
from randlora.adapter.layer import RandLoraLayer
from randlora.adapter.linear import RandLoraLinear
from randlora.adapter.weights import layer_shape
from randlora.bases import Bases, StoredBases
from randlora.config import RandLoraConfig
from randlora.errors import LayerError, UpdateError


class RandLoraTuner(BaseTuner):
    """Puts RandLoRA adapters into a model; used through `peft.get_peft_model` and `peft.PeftModel`."""

    prefix = "randlora_"
    tuner_layer_cls = RandLoraLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_RANDLORA_TARGET_MODULES_MAPPING

    def _prepare_model(self, peft_config: PeftConfig, model: nn.Module) -> None:
        """Check every matched layer and settle the bases before the first module is replaced."""
        shapes = self.matched_shapes(peft_config, model)
        self._bases: Bases = resolve_bases(peft_config, list(shapes.values()))
        for shape in shapes.values():
            self._bases.reserve(peft_config.r, min(shape), max(shape))

    def matched_shapes(self, config: RandLoraConfig, model: nn.Module) -> dict[str, tuple[int, int]]:
        """(out, in) of every module that the config matches, by name.

        Args:
            config: The adapter's configuration, target modules settled.
            model: The base model, with or without other adapters.

        Raises:
            LayerError: A matched module cannot be adapted.
        """
        config = _maybe_include_all_linear_layers(config, model)
        shapes = {}
        for name, module in model.named_modules():
            if not name or ".base_layer" in name or not self._check_target_module_exists(config, name):
                continue
            shape = layer_shape(module)
            if shape is None:
                raise LayerError(
                    f"module {name!r}",
                    expected="nn.Linear or Conv1D with a floating-point weight",
                    got=type(module).__name__,
                    hint="narrow target_modules, or name it in exclude_modules",
                )
            shapes[name] = shape
        return shapes

    def _create_and_replace(
        self,
        peft_config: RandLoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional_kwargs: Any,  # noqa: ARG002 - PEFT's signature
    ) -> None:
        if isinstance(self._bases, StoredBases):
            # Part of the state dict, under the name that the converter writes.
            self.randlora_stored = getattr(self, "randlora_stored", nn.ModuleDict())
            self.randlora_stored[adapter_name] = self._bases
        r = peft_config.rank_pattern.get(get_pattern_key(peft_config.rank_pattern.keys(), current_key), peft_config.r)
        alphas = peft_config.alpha_pattern
        alpha = alphas.get(get_pattern_key(alphas.keys(), current_key), cast("float", peft_config.alpha))
        if isinstance(target, RandLoraLayer):
            target.update_layer(adapter_name, peft_config, r, alpha, self._bases, peft_config.inference_mode)
            if adapter_name not in self.active_adapters:
                target.set_requires_grad(adapter_name, requires_grad=False)
            return
        layer = RandLoraLinear(target, adapter_name, peft_config, r, alpha, self._bases)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    @contextmanager
    def _enable_peft_forward_hooks(self, *_args: Any, **kwargs: Any) -> Iterator[None]:
        """PEFT's hook around a forward pass: refuse a mixed batch, whose adapter names PEFT would drop."""
        if kwargs.get("adapter_names") is not None:
            raise UpdateError(
                "adapter_names",
                expected="one set of adapters for the whole batch",
                hint="split the batch and call set_adapter for each part",
            )
        yield

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """PEFT's hook between reading a checkpoint and filling the model: refuse one that does not fit it whole."""
        remapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        check_state_dict(model, adapter_name, remapped)
        return remapped
