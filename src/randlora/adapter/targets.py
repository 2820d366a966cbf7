"""Find what a config names: modules outside of adapters, and parameters as stacks of matrices."""

import re
from collections.abc import Collection, Iterable, Iterator
from copy import copy
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer, _maybe_include_all_linear_layers, check_target_module_exists
from torch import nn

from randlora.adapter.kinds import LINEARS, StackedWeight
from randlora.adapter.weights import innermost
from randlora.adapter_config import AdapterConfig
from randlora.errors import ConfigError, LayerError

# Of transformers; MHAttentionMap, ShortConv and ShortConvolution are the ends of several names.
_READERS = (
    "WavLMAttention",
    "DisentangledSelfAttention",
    "MHAttentionMap",
    "ShortConv",
    "ShortConvolution",
    "RecurrentGemmaRecurrentBlock",
    "TDNNLayer",
    "LongcatFlashTopkRouter",
    "MobileBertLMPredictionHead",
    "NeoMMEForMaskedLM",
)


def reads_weights(module: nn.Module) -> bool:
    """Whether the code of a module reads the weights of layers in it, which it then need not call.

    Known are the fast path of nn.TransformerEncoderLayer, the mixers of Mamba and its kin, which have an A_log, and
    some modules of transformers: attention, short convolutions, a router, heads.
    """
    is_known = isinstance(module, nn.TransformerEncoderLayer) or type(module).__name__.endswith(_READERS)
    return is_known or hasattr(module, "A_log")


def outer_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module with its name, but not what lies inside an adapted layer."""
    adapted: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(adapted):
            continue
        if isinstance(module, BaseTunerLayer):
            adapted = (f"{name}.",)
        yield name, module


def adapter_in_the_way(module: nn.Module, layer_class: type[BaseTunerLayer]) -> BaseTunerLayer | None:
    """The adapter of another method on a module, where a new one can neither join it nor lie around it.

    Layers in general have one around the other. But a method made of another one (hybrid of RandLoRA) takes the other's
    layers for its own, and attention modules and parameters have no place for a second method.

    Args:
        module: The module, adapted or not.
        layer_class: The adapter layers of the new one.
    """
    updates = module.updates.values() if isinstance(module, BaseTunerLayer) and hasattr(module, "updates") else [module]
    for layer in updates:
        if isinstance(layer, BaseTunerLayer) and type(layer) is not layer_class:
            is_alone = layer is not module or isinstance(innermost(module), nn.MultiheadAttention)
            if is_alone or isinstance(layer, layer_class) or issubclass(layer_class, type(layer)):
                return layer
    return None


def stacked_weights(name: str, attention: nn.MultiheadAttention) -> dict[str, StackedWeight]:
    """The matrices that an attention module multiplies with: those of q, k and v, packed or not, and of the output."""
    if attention._qkv_same_embed_dim:
        counts = {"in_proj_weight": 3}
    else:
        counts = dict.fromkeys(("q_proj_weight", "k_proj_weight", "v_proj_weight"), 1)
    counts["out_proj.weight"] = 1
    return {f"{name}.{parameter}": StackedWeight(attention, parameter, count) for parameter, count in counts.items()}


def pattern_name(name: str, layer: nn.Module) -> str:
    """The name by which the patterns of a config know a base layer: of a matrix of attention, that of its module.

    Args:
        name: The base layer's, as `stacked_weights` and `matched_parameters` give it where it is a parameter.
        layer: The base layer.
    """
    in_attention = isinstance(layer, StackedWeight) and isinstance(layer.owner, nn.MultiheadAttention)
    return name.removesuffix(f".{layer.name}") if in_attention else name


def very_layers(names: Iterable[str]) -> dict[str, Any]:
    """Fields of a config for the very layers of another one: PEFT reads `layers_to_transform` in another way.

    Args:
        names: Of the layers, in the base model or in the one around it.
    """
    own = sorted(name.removeprefix("base_model.model.") for name in names)
    return {"target_modules": own, "layers_to_transform": None, "layers_pattern": None}


def settle_targets(config: AdapterConfig, model: nn.Module) -> None:
    """Write the names that "all-linear" stands for, in the chosen blocks, into a config.

    Args:
        config: Changed where its `target_modules` is "all-linear".
        model: The base model, with or without other adapters.

    Raises:
        ConfigError: No block of the model has one of the numbers in `layers_to_transform`.
    """
    _check_blocks(config, model)
    before = config.target_modules
    _maybe_include_all_linear_layers(config, model)
    if config.target_modules is not before:
        named = {*(config.target_modules or ()), *_adapted_linears(model)}
        config.target_modules = {name for name in named if _in_chosen_blocks(config, name, is_full_name=False)}


def _adapted_linears(model: nn.Module) -> Iterator[str]:
    """The linear layers that have an adapter already, which PEFT knows by the name of their class; but no head."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for name, module in outer_modules(model):
        if isinstance(module, BaseTunerLayer) and isinstance(innermost(module), LINEARS) and module is not head:
            yield name


def is_target_module(config: Any, name: str) -> Any:
    """Whether a config names a module: PEFT's answer, with the blocks looked at for every form of `target_modules`.

    Args:
        config: An adapter's configuration.
        name: The module's full name.
    """
    found = check_target_module_exists(_without_blocks(config), name)
    # What PEFT answers for an excluded module is false too, and told apart by it.
    if found and not _in_chosen_blocks(config, name, is_full_name=name in _listed(config.target_modules)):
        return False
    return found


def _without_blocks(config: AdapterConfig) -> AdapterConfig:
    if config.layers_to_transform is None:
        return config
    plain = copy(config)
    plain.layers_to_transform = None
    return plain


def _listed(targets: Any) -> Collection[str]:
    return () if targets is None or isinstance(targets, str) else targets


def _in_chosen_blocks(config: AdapterConfig, name: str, *, is_full_name: bool) -> bool:
    """Whether `layers_to_transform` leaves something in; what lies in no block only if its full name is listed."""
    chosen = _chosen_blocks(config)
    if not chosen:
        return True
    block = _block_of(config, name)
    return is_full_name if block is None else block in chosen


def _chosen_blocks(config: AdapterConfig) -> Collection[int]:
    """The numbers in `layers_to_transform`; none of them means all blocks."""
    chosen = config.layers_to_transform
    return [chosen] if isinstance(chosen, int) else chosen or []


def _block_of(config: AdapterConfig, name: str) -> int | None:
    """The first number in a name, or the one behind the name of the block list where the config gives it."""
    patterns = config.layers_pattern or ()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if match := re.match(rf"(?:^|.*?\.)(?:{pattern})\.(?P<block>\d+)(?:\.|$)", name):
            return int(match["block"])
    if not patterns and (match := re.match(r"(?:^|.*?\.)(?P<block>\d+)(?:\.|$)", name)):
        return int(match["block"])
    return None


def _check_blocks(config: AdapterConfig, model: nn.Module) -> None:
    """Raise unless some module of the model lies in one of the chosen blocks."""
    if any(_in_chosen_blocks(config, name, is_full_name=False) for name, _ in outer_modules(model)):
        return
    where = f" in {config.layers_pattern}" if config.layers_pattern else ""
    raise ConfigError(
        "layers_to_transform", expected=f"numbers of blocks of the model{where}", got=repr(config.layers_to_transform)
    )


def matched_parameters(
    config: AdapterConfig, model: nn.Module, taken: Collection[str] = ()
) -> dict[str, StackedWeight]:
    """The parameters whose names end in one of a config's `target_parameters`, by name.

    Args:
        config: The adapter's configuration; `layers_to_transform` and `exclude_modules` hold for parameters too.
        model: The base model, with or without other adapters.
        taken: Names of the layers that the config adapts as modules.

    Raises:
        LayerError: A target is not there, is of the whole model itself, or is adapted with its module.
    """
    found = {}
    targets = config.target_parameters or ()
    missing = set(targets)
    for module_name, module in outer_modules(model) if targets else ():
        layer = innermost(module)
        for parameter, _ in layer.named_parameters(recurse=False):
            name = f"{module_name}.{parameter}"
            fitting = {target for target in targets if name == target or name.endswith(f".{target}")}
            if not fitting:
                continue
            missing -= fitting
            if not _in_chosen_blocks(config, name, is_full_name=name in targets) or _is_excluded(
                config, module_name, name
            ):
                continue
            _check_place(name, module_name, module, taken)
            found[name] = StackedWeight(layer, parameter)
    if missing:
        raise LayerError(
            f"target_parameters entry {min(missing)!r}",
            expected="the name of a parameter of the model",
            got="none that ends so",
        )
    return found


def _is_excluded(config: AdapterConfig, *names: str) -> bool:
    excluded = config.exclude_modules or ()
    if isinstance(excluded, str):
        return any(re.fullmatch(excluded, name) for name in names)
    return any(name == entry or name.endswith(f".{entry}") for name in names for entry in excluded)


def _check_place(name: str, module_name: str, module: nn.Module, taken: Collection[str]) -> None:
    adapted_whole = isinstance(module, BaseTunerLayer) and not hasattr(module, "updates")
    if not module_name or adapted_whole or module_name in taken or isinstance(innermost(module), nn.MultiheadAttention):
        raise LayerError(
            f"parameter {name!r}",
            expected="one of a module inside the model that has no other adapter",
            got=type(innermost(module)).__name__,
            hint="name the module in target_modules instead",
        )
