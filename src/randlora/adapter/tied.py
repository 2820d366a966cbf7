"""Weights that several modules have, as embedding and head: what a merge writes into becomes a copy of its own."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from randlora.adapter.kinds import StackedWeight
from randlora.adapter.quantized import quantized_format
from randlora.errors import LayerError

# Of transformers: their forward scales by what config.tie_word_embeddings says, so that it has to stay.
_READ_IN_FORWARD = ("switch_transformers", "udop")


class TiedWeight:
    """The weight of a layer that other modules have too, while the layer has a copy of it.

    Args:
        base_layer: The layer; its weight is replaced by a copy.
    """

    def __init__(self, base_layer: Any) -> None:
        self._owner, self._name = _place(base_layer)
        self._weight = self._current()
        setattr(self._owner, self._name, _copy(self._weight))

    def restore(self) -> None:
        """Tie the layer again: its weight is what it was, to the last bit."""
        own = self._current()
        self._weight.data = self._weight.data.to(own.device, own.dtype)  # where the model went meanwhile
        setattr(self._owner, self._name, self._weight)

    def _current(self) -> nn.Parameter:
        return self._owner.get_parameter(self._name)


def _place(base_layer: Any) -> tuple[nn.Module, str]:
    if not isinstance(base_layer, StackedWeight):
        return base_layer, "weight"
    module, _, name = base_layer.name.rpartition(".")
    return base_layer.owner.get_submodule(module), name


def tied_layers(model: nn.Module, base_layers: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, list[str]]]:
    """The layers among some whose weight other modules have too, with the names of all that have it.

    Args:
        model: The model with its adapters.
        base_layers: Layers without their adapters.

    Raises:
        LayerError: A weight cannot be untied.
    """
    readers: dict[int, dict[int, tuple[str, nn.Module]]] = {}  # by weight: what reads it, an adapted layer as one
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, module in modules.items():
        reader = f"{name}.".partition(".base_layer.")[0].removesuffix(".")
        for parameter in module.parameters(recurse=False):
            readers.setdefault(_memory(parameter), {})[id(modules[reader])] = (reader, module)
    for layer in base_layers:
        owner, attribute = _place(layer)
        weight: Any = getattr(owner, attribute, None)
        having = list(readers.get(_memory(weight), {}).values()) if isinstance(weight, Tensor) else []
        if len(having) < 2:
            continue
        names = [name for name, _ in having]
        is_shared_module = len({id(module) for _, module in having}) < len(having)
        if is_shared_module or quantized_format(layer) is not None or weight.is_meta:
            raise LayerError(
                f"module {names[0]!r}",
                expected="a weight of its own, to merge into, or one in memory that can be copied",
                got=f"one that {names[1]!r} has too" + (", being the same module" if is_shared_module else ""),
                hint="keep the adapter unmerged",
            )
        yield layer, names


def settle_untied(model: nn.Module) -> None:
    """Give every module of a merged model that was tied a weight of its own, and have its config say so.

    What transformers ties by `tie_word_embeddings` it would draw at random where that is False and a weight is in no
    file. A config that cannot say so stays; transformers then keeps apart what it finds apart in the files.

    Args:
        model: The merged model, without adapters.
    """
    uses = Counter(_memory(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    parts = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    for part in parts:
        for target in part.get_expanded_tied_weights_keys():
            weight = part.get_parameter_or_buffer(target)
            if uses[_memory(weight)] > 1:
                uses[_memory(weight)] -= 1
                module, _, name = target.rpartition(".")
                setattr(part.get_submodule(module), name, _copy(weight))
    for part in parts:
        part._tied_weights_keys = {}
        part.all_tied_weights_keys = {}
        if _can_say_untied(part.config):
            _say_untied(part.config)


@contextmanager
def kept_ties(model: nn.Module) -> Iterator[None]:
    """Afterwards the configs of a model say of ties what they said before."""
    configs = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    said = [getattr(config, "tie_word_embeddings", None) for config in configs]
    yield
    for config, ties in zip(configs, said, strict=True):
        if ties is not None:
            config.tie_word_embeddings = ties


def _can_say_untied(config: PreTrainedConfig) -> bool:
    if config.model_type in _READ_IN_FORWARD:
        return False
    untied = deepcopy(config)
    _say_untied(untied)
    return not getattr(type(config).from_dict(untied.to_dict()), "tie_word_embeddings", False)


def _say_untied(config: PreTrainedConfig) -> None:
    for each in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if getattr(each, "tie_word_embeddings", False):
            each.tie_word_embeddings = False


def _copy(weight: Tensor) -> nn.Parameter:
    with torch.inference_mode(mode=False):  # merged in inference, the weight must serve training too
        return nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)


def _memory(weight: Any) -> int:
    return id(weight) if weight.is_meta or not weight.data_ptr() else weight.data_ptr()
