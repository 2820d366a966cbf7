"""The weighted sum of adapters that have the same bases, as one adapter."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from randlora.adapter.layer import RandLoraLayer
from randlora.config import RandLoraConfig
from randlora.errors import ConfigError

# What the bases and the layers of an adapter hang on; alpha is taken into λ.
_SAME = (
    "bases",
    "sparsity",
    "seed",
    "separate_a",
    "r",
    "rank_pattern",
    "rank_fraction",
    "num_bases",
    "target_modules",
    "target_parameters",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "peft_draw",
    "bases_fingerprint",
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
    for field in _SAME:
        if getattr(config, field) != getattr(first, field):
            raise ConfigError(
                f"adapter {name!r}",
                expected=f"{field} as of {first_name!r}, {getattr(first, field)!r}",
                got=repr(getattr(config, field)),
                hint="only adapters with the same bases on the same layers can be summed; merge them instead",
            )


@torch.no_grad()
def fill_sum(layer: RandLoraLayer, adapters: Sequence[str], weights: Sequence[float], adapter_name: str) -> None:
    """Give an adapter of as many terms the λ and γ of others, one after the other; the factors go into λ."""
    trained = [layer.trained(name) for name in adapters]
    factors = [w * layer.scaling[a] / layer.scaling[adapter_name] for w, a in zip(weights, adapters, strict=True)]
    lambda_, gamma = layer.trained(adapter_name)
    lambda_.copy_(torch.cat([f * own for f, (own, _) in zip(factors, trained, strict=True)], dim=-2))
    gamma.copy_(torch.cat([own for _, own in trained], dim=-2))
