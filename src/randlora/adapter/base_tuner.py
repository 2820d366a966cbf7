"""What every PEFT tuner of additive adapters has in common: which layers it takes, and how it refuses the others."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from typing import Any, cast

from accelerate import init_empty_weights
from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers, onload_layer
from peft.utils import TRANSFORMERS_MODELS_TO_RANDLORA_TARGET_MODULES_MAPPING, _get_submodules
from torch import Tensor, nn

from randlora.adapter.base_layer import AdapterLayer
from randlora.adapter.checkpoint import check_state_dict
from randlora.adapter.mixed_batch import adapters_by_sample
from randlora.adapter.parameters import AdaptedModule, ParameterLayer
from randlora.adapter.targets import matched_parameters, outer_modules, reads_weights, stacked_weights
from randlora.adapter.weights import StackedWeight, innermost, layer_shape
from randlora.errors import ConfigError, LayerError


class AdapterTuner(BaseTuner):
    """Puts adapters into a model; used through `peft.get_peft_model` and `peft.PeftModel`.

    A subclass sets `prefix` and `tuner_layer_cls`, whose `update_layer(adapter_name, config, ...)` takes what
    `_layer_options` returns. Where it adapts several kinds of layers, `layer_classes` lists them, and `tuner_layer_cls`
    is what they have in common.
    """

    tuner_layer_cls: type[AdapterLayer]
    layer_classes: tuple[type[AdapterLayer], ...] = ()
    target_module_mapping = TRANSFORMERS_MODELS_TO_RANDLORA_TARGET_MODULES_MAPPING

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """PEFT's, with the name checked first.

        Raises:
            ConfigError: Torch has no parameter of this name.
        """
        check_adapter_name(adapter_name)
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def _prepare_model(self, peft_config: PeftConfig, model: nn.Module) -> None:
        """Check every matched layer before the first module is replaced."""
        self.matched_shapes(peft_config, model)

    def _layer_options(self, config: Any, key: str) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """What `update_layer` of the layer called `key` takes beside the adapter's name and its config."""
        return {}

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        """PEFT's hook to fill in the target modules, which a config with target parameters need not have."""
        if peft_config.target_modules is None and peft_config.target_parameters:
            return peft_config
        return super()._prepare_adapter_config(peft_config, model_config)

    @classmethod
    def matched_layers(cls, config: Any, model: nn.Module) -> dict[str, nn.Module]:
        """The base layers that the config matches, by name; of attention modules and parameters, as `StackedWeight`.

        Args:
            config: The adapter's configuration, target modules settled.
            model: The base model, with or without other adapters.

        Raises:
            LayerError: A matched layer cannot be adapted, or a target parameter is not there.
            ConfigError: The config asks for what a matched layer does not have.
        """
        config = _maybe_include_all_linear_layers(copy(config), model)
        layers: dict[str, nn.Module] = {}
        for name, module in outer_modules(model):
            layer = innermost(module)
            if name and cls._check_target_module_exists(config, name):
                if isinstance(module, AdaptedModule) and not isinstance(layer, nn.MultiheadAttention):
                    raise LayerError(
                        f"module {name!r}",
                        expected="a layer without adapters on its parameters",
                        got=f"one on {', '.join(module.updates)}",
                        hint="name its parameters in target_parameters instead",
                    )
                layers |= stacked_weights(name, layer) if isinstance(layer, nn.MultiheadAttention) else {name: layer}
        layers |= matched_parameters(config.target_parameters or (), model, set(layers))
        for name, layer in layers.items():
            cls._layer_class(config, name, layer)
        return layers

    @classmethod
    def matched_shapes(cls, config: Any, model: nn.Module) -> dict[str, tuple[int, int]]:
        """(out, in) of every layer of `matched_layers`."""
        return {name: layer_shape(layer) for name, layer in cls.matched_layers(config, model).items()}

    @classmethod
    def _layer_class(cls, config: Any, name: str, layer: nn.Module) -> type[AdapterLayer]:
        """The class that adapts a layer.

        Raises:
            LayerError: There is none.
        """
        classes = cls.layer_classes or (cls.tuner_layer_cls,)
        fitting = [layer_class for layer_class in classes if layer_class.fits(layer)]
        expected = " or ".join(base_type.__name__ for each in classes for base_type in each.base_types)
        if fitting:
            expected = fitting[0].refusal(layer)
            if not expected and config.dropout and not fitting[0].takes_dropout(layer):
                expected = "dropout=0 for this kind of layer"
            elif not expected and config.bias.endswith("_only") and isinstance(layer, StackedWeight):
                expected = "bias='none' or 'all' with an adapter on parameters"
        if expected:
            raise LayerError(
                f"module {name!r}",
                expected=expected,
                got=type(getattr(layer, "owner", layer)).__name__,
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
        base = innermost(target)
        if isinstance(base, nn.MultiheadAttention):
            adapted = target if isinstance(target, AdaptedModule) else AdaptedModule(base)
            for stack in stacked_weights(current_key, base).values():
                self._adapt_parameter(peft_config, adapter_name, adapted, stack, current_key)
            layer: Any = adapted
        else:
            layer = target
            if not isinstance(target, self.tuner_layer_cls):
                layer = self._layer_class(peft_config, current_key, base)(target, adapter_name)
            layer.weight_is_read = reads_weights(parent)
            self._add_adapter(peft_config, adapter_name, layer, current_key)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def _add_adapter(self, config: Any, adapter_name: str, layer: Any, key: str) -> None:
        layer.update_layer(adapter_name, config, **self._layer_options(config, key))
        if adapter_name not in self.active_adapters:
            layer.set_requires_grad(adapter_name, requires_grad=False)

    def _adapt_parameter(
        self, config: Any, adapter_name: str, adapted: AdaptedModule, stack: StackedWeight, key: str
    ) -> None:
        layer = adapted.update_of(stack.name)
        if layer is None:
            layer = cast("ParameterLayer", self._layer_class(config, key, stack)(stack, adapter_name))
            adapted.add_update(stack.name, layer)
        self._add_adapter(config, adapter_name, layer, key)

    def _inject_parameters(
        self, peft_config: Any, model: nn.Module, adapter_name: str, low_cpu_mem_usage: bool
    ) -> list[str]:
        """PEFT's hook for `target_parameters`; all were checked in `_prepare_model`."""
        matched = matched_parameters(peft_config.target_parameters, model)
        for name, stack in matched.items():
            parent, target, target_name = _get_submodules(model, name.removesuffix(f".{stack.name}"))
            adapted = target if isinstance(target, AdaptedModule) else AdaptedModule(target)
            with init_empty_weights() if low_cpu_mem_usage else nullcontext():
                self._adapt_parameter(peft_config, adapter_name, adapted, stack, name)
            if adapted is not target:
                self._replace_module(parent, target_name, adapted, target)
        return list(matched)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        if not hasattr(new_module, "base_layer"):  # unloading: PEFT would set its weight, which it need not have
            setattr(parent, child_name, new_module)
        else:
            super()._replace_module(parent, child_name, new_module, child)

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """PEFT's, with every layer checked before the first weight is written.

        Args:
            adapter_names: Which; None merges the active ones.
            safe_merge: See `AdapterLayer.merge`.

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

    def _adapted(self) -> list[Any]:
        return [module for _, module in outer_modules(self.model) if isinstance(module, BaseTunerLayer)]

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
            weight = getattr(innermost(layer), "weight", None) if isinstance(layer, AdapterLayer) else None
            names = list(readers.get(id(weight), {}).values())
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


def check_adapter_name(name: str) -> None:
    """Raise a ConfigError unless an `nn.ParameterDict` can have a name as its key."""
    if not name or "." in name or hasattr(nn.ParameterDict(), name):
        raise ConfigError(
            "adapter_name", expected="a name without dots that is no method of a dictionary", got=repr(name)
        )
