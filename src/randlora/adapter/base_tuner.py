"""What every PEFT tuner of additive adapters has in common: which layers it takes, and how it refuses the others."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, _maybe_include_all_linear_layers
from peft.utils import TRANSFORMERS_MODELS_TO_RANDLORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn

from randlora.adapter.base_layer import AdapterLayer
from randlora.adapter.checkpoint import check_state_dict
from randlora.adapter.mixed_batch import adapters_by_sample
from randlora.adapter.weights import innermost, layer_shape
from randlora.errors import LayerError


class AdapterTuner(BaseTuner):
    """Puts adapters into a model; used through `peft.get_peft_model` and `peft.PeftModel`.

    A subclass sets `prefix` and `tuner_layer_cls`, whose `update_layer(adapter_name, config, ...)` takes what
    `_layer_options` returns. Where it adapts several kinds of layers, `layer_classes` lists them, and `tuner_layer_cls`
    is what they have in common.
    """

    tuner_layer_cls: type[AdapterLayer]
    layer_classes: tuple[type[AdapterLayer], ...] = ()
    target_module_mapping = TRANSFORMERS_MODELS_TO_RANDLORA_TARGET_MODULES_MAPPING

    def _prepare_model(self, peft_config: PeftConfig, model: nn.Module) -> None:
        """Check every matched layer before the first module is replaced."""
        self.matched_shapes(peft_config, model)

    def _layer_options(self, config: Any, key: str) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """What `update_layer` of the layer called `key` takes beside the adapter's name and its config."""
        return {}

    @classmethod
    def matched_shapes(cls, config: Any, model: nn.Module) -> dict[str, tuple[int, int]]:
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
            if not name or ".base_layer" in name or not cls._check_target_module_exists(config, name):
                continue
            cls._layer_class(config, name, innermost(module))
            shapes[name] = layer_shape(module)
        return shapes

    @classmethod
    def _layer_class(cls, config: Any, name: str, layer: nn.Module) -> type[AdapterLayer]:
        """The class that adapts a layer.

        Raises:
            LayerError: There is none.
        """
        classes = cls.layer_classes or (cls.tuner_layer_cls,)
        fitting = [layer_class for layer_class in classes if isinstance(layer, layer_class.base_types)]
        expected = " or ".join(base_type.__name__ for each in classes for base_type in each.base_types)
        if fitting:
            expected = fitting[0].refusal(layer)
            if not expected and config.dropout and not fitting[0].takes_dropout(layer):
                expected = "dropout=0 for this kind of layer"
        if expected:
            raise LayerError(
                f"module {name!r}",
                expected=expected,
                got=type(layer).__name__,
                hint="narrow target_modules, or name it in exclude_modules",
            )
        return fitting[0]

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional_kwargs: Any,  # noqa: ARG002 - PEFT's signature
    ) -> None:
        known = isinstance(target, self.tuner_layer_cls)
        layer: Any = target
        if not known:
            layer = self._layer_class(peft_config, current_key, innermost(target))(target, adapter_name)
        layer.update_layer(adapter_name, peft_config, **self._layer_options(peft_config, current_key))
        if adapter_name not in self.active_adapters:
            layer.set_requires_grad(adapter_name, requires_grad=False)
        if not known:
            self._replace_module(parent, target_name, layer, target)

    def _check_merge_allowed(self) -> None:
        """PEFT's hook before a merge: refuse to write into a weight that another module reads too (tied embeddings).

        Raises:
            LayerError: Merging would change what the other module computes.
        """
        readers: dict[int, list[str]] = {}
        for name, module in self.model.named_modules():
            for parameter in module.parameters(recurse=False):
                readers.setdefault(id(parameter), []).append(name.replace(".base_layer", ""))
        for layer in self.model.modules():
            names = readers.get(id(innermost(layer).weight), []) if isinstance(layer, AdapterLayer) else []
            if len(names) > 1:
                raise LayerError(
                    f"module {names[0]!r}",
                    expected="a weight of its own, to merge into",
                    got=f"one that {names[1]!r} has too",
                    hint="load the model with tie_word_embeddings=False, or keep the adapter unmerged",
                )

    @contextmanager
    def _enable_peft_forward_hooks(self, *_args: Any, **kwargs: Any) -> Iterator[None]:
        """PEFT's hook around `forward` and `generate`: a batch whose samples name their adapters."""
        names = kwargs.get("adapter_names")
        with nullcontext() if names is None else adapters_by_sample(self.model, names, kwargs.get("num_beams") or 1):
            yield

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """PEFT's hook between reading a checkpoint and filling the model: refuse one that does not fit it whole."""
        remapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        check_state_dict(model, cls.tuner_layer_cls, adapter_name, remapped)
        return remapped
