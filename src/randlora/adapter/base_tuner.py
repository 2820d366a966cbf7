"""What every PEFT tuner of additive adapters has in common: which layers it takes, and how it refuses the others."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy, deepcopy
from typing import Any, cast

from accelerate import init_empty_weights
from peft.config import PeftConfig
from peft.utils import TRANSFORMERS_MODELS_TO_RANDLORA_TARGET_MODULES_MAPPING, _get_submodules
from torch import Tensor, nn

from randlora.adapter.base_layer import AdapterLayer
from randlora.adapter.base_shapes import settle_blocks, settle_shapes
from randlora.adapter.kinds import StackedWeight, kind_of
from randlora.adapter.merging import MergingTuner
from randlora.adapter.mixed_batch import adapters_by_sample
from randlora.adapter.parameters import AdaptedModule
from randlora.adapter.state_dict import check_state_dict
from randlora.adapter.targets import (
    adapter_in_the_way,
    is_target_module,
    matched_parameters,
    outer_modules,
    reads_weights,
    settle_targets,
    stacked_weights,
)
from randlora.adapter.weights import full_shape, innermost
from randlora.adapter_config import AdapterConfig
from randlora.errors import ConfigError, LayerError


class AdapterTuner(MergingTuner):
    """Puts adapters into a model; used through `peft.get_peft_model` and `peft.PeftModel`.

    A subclass sets `prefix` and `tuner_layer_cls`, whose `update_layer(adapter_name, config, ...)` takes what
    `_layer_options` returns.
    """

    tuner_layer_cls: type[AdapterLayer]
    target_module_mapping = TRANSFORMERS_MODELS_TO_RANDLORA_TARGET_MODULES_MAPPING

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """PEFT's, with the name checked first, and a config of the adapter's own, so that the caller's stays as it is.

        Raises:
            ConfigError: Torch has no parameter of this name.
        """
        check_adapter_name(adapter_name)
        config = self.peft_config[adapter_name]
        if not config.inference_mode:  # a config for loading PEFT changes itself, and keeps
            self.peft_config[adapter_name] = deepcopy(config)
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def _prepare_model(self, peft_config: PeftConfig, model: nn.Module) -> None:
        """Check every matched layer before the first module is replaced."""
        config = cast("AdapterConfig", peft_config)
        layers = self.matched_layers(config, model)
        settle_shapes(config, layers)
        settle_blocks(config, layers, model)
        _check_rank(config, layers)
        self._prepare_layers(config, layers)

    def _prepare_layers(self, config: Any, layers: dict[str, nn.Module]) -> None:
        """Check further and prepare what the layers share, for subclasses; `layers` is what `matched_layers` gives."""

    @staticmethod
    def _check_target_module_exists(peft_config: PeftConfig, key: str) -> Any:
        """PEFT's hook; see `is_target_module`."""
        return is_target_module(peft_config, key)

    def _layer_options(self, config: Any, key: str) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """What `update_layer` of the layer called `key` takes beside the adapter's name and its config."""
        return {}

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        """PEFT's hook to fill in the target modules, which a config with target parameters need not have."""
        if peft_config.target_modules is not None or not peft_config.target_parameters:
            peft_config = super()._prepare_adapter_config(peft_config, model_config)
        settle_targets(cast("AdapterConfig", peft_config), self.model)
        return peft_config

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
        config = copy(config)
        settle_targets(config, model)
        layers: dict[str, nn.Module] = {}
        for name, module in outer_modules(model):
            layer = innermost(module)
            if name and is_target_module(config, name):
                if isinstance(module, AdaptedModule) and not isinstance(layer, nn.MultiheadAttention):
                    raise LayerError(
                        f"module {name!r}",
                        expected="a layer without adapters on its parameters",
                        got=f"one on {', '.join(module.updates)}",
                        hint="name its parameters in target_parameters instead",
                    )
                layers |= stacked_weights(name, layer) if isinstance(layer, nn.MultiheadAttention) else {name: layer}
        layers |= matched_parameters(config, model, set(layers))
        cls._check_others(model, {id(getattr(layer, "owner", layer)) for layer in layers.values()})
        for name, layer in layers.items():
            cls._check_layer(config, name, layer)
        return layers

    @classmethod
    def _check_others(cls, model: nn.Module, matched: set[int]) -> None:
        """Raise a LayerError where a matched module has an adapter of a method that this one does not go with."""
        for name, module in outer_modules(model):
            other = adapter_in_the_way(module, cls.tuner_layer_cls) if id(innermost(module)) in matched else None
            if other is not None:
                raise LayerError(
                    f"module {name!r}",
                    expected="no adapter of another method on it",
                    got=type(other).__name__,
                    hint="merge or unload that one first",
                )

    @classmethod
    def _check_layer(cls, config: Any, name: str, layer: nn.Module) -> None:
        """Raise a LayerError where a layer cannot be adapted."""
        expected = cls.tuner_layer_cls.refusal(layer)
        if not expected and config.dropout and not kind_of(layer).takes_dropout(layer):
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
                layer = self.tuner_layer_cls(target, adapter_name)
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
            layer = self.tuner_layer_cls(stack, adapter_name)
            adapted.add_update(stack.name, layer)
        self._add_adapter(config, adapter_name, layer, key)

    def _inject_parameters(
        self, peft_config: Any, model: nn.Module, adapter_name: str, low_cpu_mem_usage: bool
    ) -> list[str]:
        """PEFT's hook for `target_parameters`; all were checked in `_prepare_model`."""
        matched = matched_parameters(peft_config, model)
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

    def delete_adapter(self, adapter_name: str) -> None:
        """PEFT's, after which the same adapters are active on all layers: each would choose among its own.

        Args:
            adapter_name: The adapter to delete.
        """
        others = [name for name in self.active_adapters if name != adapter_name]
        was_active = adapter_name in self.active_adapters
        super().delete_adapter(adapter_name)
        remaining = others or sorted(self.peft_config)[:1]
        if was_active and remaining:
            self.set_adapter(remaining)

    def add_weighted_adapter(self, *_args: Any, **_options: Any) -> None:
        """Not for every method; a tuner whose method can sum adapters overrides it.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "add_weighted_adapter",
            expected="adapters of a method that can sum them",
            got=f"{type(self).__name__}'s",
            hint="merge the adapters, or activate several, instead",
        )

    @contextmanager
    def _enable_peft_forward_hooks(self, *_args: Any, **kwargs: Any) -> Iterator[None]:
        """PEFT's hook around `forward` and `generate`: a batch whose samples name their adapters."""
        names = kwargs.get("adapter_names")
        with nullcontext() if names is None else adapters_by_sample(self.model, names, kwargs.get("num_beams") or 1):
            yield

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """PEFT's hook from a parameter's name to that in a checkpoint, where a trained tensor has no `.weight`."""
        key = super()._remove_adapter_name_from_key(key, adapter_name)
        name, _, last = key.rpartition(".")
        is_trained = last == "weight" and name.rpartition(".")[2] in cls.tuner_layer_cls.adapter_layer_names
        return name if is_trained else key

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """PEFT's hook between reading a checkpoint and filling the model: refuse one that does not fit it whole."""
        remapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        check_state_dict(model, cls.tuner_layer_cls, adapter_name, remapped)
        return remapped


def _check_rank(config: AdapterConfig, layers: dict[str, nn.Module]) -> None:
    """Raise a ConfigError where r is larger than every side of every layer: a slip, for which memory would run out.

    On tiny models the default ranks are larger too; they do no harm.
    """
    r = getattr(config, "r", 0)
    largest = max((max(full_shape(layer)) for layer in layers.values()), default=r)
    if r > max(largest, 256):
        expected = f"at most {largest}, the largest side of a layer"
        raise ConfigError("r", expected=expected, got=f"{r}, which is larger than every layer")


def check_adapter_name(name: str) -> None:
    """Raise a ConfigError unless an `nn.ModuleDict` can have a name as its key."""
    if not name or "." in name or hasattr(nn.ModuleDict(), name):
        raise ConfigError(
            "adapter_name", expected="a name without dots that is no method of a dictionary", got=repr(name)
        )
