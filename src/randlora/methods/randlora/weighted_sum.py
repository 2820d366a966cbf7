"""The weighted sum of adapters that have the same bases, as one adapter."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from randlora.adapter.weights import innermost
from randlora.errors import ConfigError
from randlora.methods.randlora.config import RandLoraConfig, by_pattern
from randlora.methods.randlora.state import RandLoraState

# What the bases hang on; alpha is taken into λ, and r is compared layer by layer.
_SAME = (
    "bases",
    "sparsity",
    "seed",
    "separate_a",
    "rank_fraction",
    "num_bases",
    "peft_draw",
    "bases_fingerprint",
)
# What says which layers an adapter is on, and with which r.
_PLACES = (
    "r",
    "rank_pattern",
    "target_modules",
    "target_parameters",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
)


def check_linear(combination_type: str) -> None:
    """Raise a ConfigError unless a `combination_type` of PEFT's is "linear", the only one there is."""
    if combination_type != "linear":
        raise ConfigError(
            "combination_type",
            expected="'linear', the exact sum",
            got=repr(combination_type),
            hint="the others approximate, or concatenate, the matrices of LoRA",
        )


def check_summable(
    known: Mapping[str, Any], adapters: Sequence[str], weights: Sequence[float], adapter_name: str
) -> list[RandLoraConfig]:
    """The configs of adapters that can be summed.

    Raises:
        ConfigError: A name is unknown or taken, a factor is no number, two adapters differ in more than λ, γ, alpha, or
            one trains biases or whole modules, which have no sum.
    """
    if adapter_name in known:
        raise ConfigError("adapter_name", expected="a name that is not taken", got=repr(adapter_name))
    for name in adapters:
        if name not in known:
            raise ConfigError("adapters", expected="one or more of " + ", ".join(known), got=repr(name))
    if not adapters or len(adapters) != len(weights):
        got = f"{len(weights)} for {len(adapters)} adapters"
        raise ConfigError("weights", expected="a factor for each of one or more adapters", got=got)
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise ConfigError("weights", expected="finite numbers", got=repr(weight))
    configs = [known[name] for name in adapters]
    for name, config in zip(adapters, configs, strict=True):
        _check_alike(name, config, adapters[0], configs[0])
    return configs


def _check_alike(name: str, config: RandLoraConfig, first_name: str, first: RandLoraConfig) -> None:
    if config.bias != "none" or config.modules_to_save:
        raise ConfigError(
            f"adapter {name!r}",
            expected="nothing trained but λ and γ",
            got=f"bias={config.bias!r}, modules_to_save={config.modules_to_save!r}",
            hint="biases and whole modules have no sum",
        )
    for field in (*_SAME, "r") if first.bases == "peft" else _SAME:  # which has one r for all layers
        if getattr(config, field) != getattr(first, field):
            raise ConfigError(
                f"adapter {name!r}",
                expected=f"{field} as of {first_name!r}, {getattr(first, field)!r}",
                got=repr(getattr(config, field)),
                hint="only adapters with the same bases can be summed; merge them, or activate both, instead",
            )


def sum_config(summed: Mapping[str, RandLoraConfig], model: nn.Module, terms: int) -> RandLoraConfig:
    """The config of a sum: on all layers that one of the adapters is on, each with the r that it has there.

    Args:
        summed: Name of each adapter -> its config.
        model: The model with the adapters.
        terms: Number of terms.

    Raises:
        ConfigError: Two adapters have another r on one layer.
    """
    first, *others = summed.values()
    fields: dict[str, Any] = {"terms": terms, "inference_mode": True}
    if all(getattr(config, name) == getattr(first, name) for config in others for name in _PLACES):
        return replace(first, **fields)
    modules: set[str] = set()
    parameters: list[str] = []
    ranks: dict[str, int] = {}
    for key, is_parameter, layer in places(model):
        own = {
            name: by_pattern(config.rank_pattern, key, config.r) for name, config in summed.items() if name in layer.r
        }
        if own:
            ranks[key] = _one_rank(key, own)
            (parameters.append if is_parameter else modules.add)(key)
    fields |= dict.fromkeys(_PLACES)
    fields["r"] = max(ranks.values(), key=list(ranks.values()).count)
    fields["rank_pattern"] = {f"^{re.escape(key)}": r for key, r in ranks.items() if r != fields["r"]}
    fields["target_modules"], fields["target_parameters"] = modules or None, parameters or None
    return replace(first, **fields)


def places(model: nn.Module) -> Iterator[tuple[str, bool, RandLoraState]]:
    """Every adapted layer with the name that a config knows it by, and whether that is a parameter's."""
    for name, layer in model.named_modules():
        if isinstance(layer, RandLoraState):
            module, is_inside, _ = name.rpartition(".updates.")
            is_parameter = bool(is_inside) and not isinstance(
                innermost(model.get_submodule(module)), nn.MultiheadAttention
            )
            yield (f"{module}.{layer.get_base_layer().name}" if is_parameter else module or name), is_parameter, layer


def _one_rank(layer: str, ranks: Mapping[str, int]) -> int:
    (first, r), *others = ranks.items()
    for name, other in others:
        if other != r:
            raise ConfigError(
                f"adapter {name!r}",
                expected=f"r as of {first!r} on layer {layer!r}, {r}",
                got=repr(other),
                hint="bases of another r have no common form; merge the adapters, or activate both, instead",
            )
    return r


@torch.no_grad()
def fill_sum(layer: RandLoraState, summed: Sequence[tuple[str, float, RandLoraConfig]], adapter_name: str) -> None:
    """Give an adapter the λ and γ of others, one after the other, zeros for one that is not on the layer.

    Args:
        layer: A layer that the sum is on.
        summed: Name, factor and config of each; the factors go into λ.
        adapter_name: The sum.
    """
    parts: list[tuple[Tensor, ...]] = []
    total = layer.trained(adapter_name)
    for name, weight, config in summed:
        if name in layer.scaling:
            lambda_, gamma = layer.trained(name)
            parts.append((weight * layer.scaling[name] / layer.scaling[adapter_name] * lambda_, gamma))
        else:
            rows = config.terms * layer.num_bases[adapter_name]
            parts.append(tuple(torch.zeros_like(tensor[..., :rows, :]) for tensor in total))
    for tensor, own in zip(total, zip(*parts, strict=True), strict=True):
        tensor.copy_(torch.cat(own, dim=-2))
