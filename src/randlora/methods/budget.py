"""The basis rank for a budget."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from torch import nn

from randlora.adapter.targets import pattern_name
from randlora.adapter.weights import layer_shape, stack_shape
from randlora.adapter_config import AdapterConfig
from randlora.errors import ConfigError
from randlora.methods import CATALOGUE
from randlora.methods.catalogue import Method
from randlora.methods.randlora import RandLoraConfig, default_alpha
from randlora.methods.randlora.config import by_pattern
from randlora.methods.svd import SvdConfig

Config = TypeVar("Config", bound=AdapterConfig)
_Layers: TypeAlias = Counter[tuple[tuple[int, int], int | None]]
"""(out, in), and the r that a rank_pattern gives, None without -> how many matrices there are of them."""


def fits_budget(config: type) -> bool:
    """Whether `fit_rank` takes configs of a class: of this package, whose r sets how many numbers are trained."""
    return _method(config) is not None


def fit_rank(
    config: Config,
    model: nn.Module,
    *,
    parameters: int | None = None,
    lora_rank: int | None = None,
    within: float = 0.0,
) -> Config:
    """The config with the basis rank whose number of trained numbers is nearest to a budget.

    Args:
        config: Of a method of this package whose r sets how many numbers it trains; r is replaced, a hybrid
            adapter's lora_r is not, nor what a rank_pattern says of some layers.
        model: The base model, not changed.
        parameters: The budget, in trained numbers.
        lora_rank: Or: as many as LoRA of this rank on the same layers.
        within: A share of the budget. Of the ranks that miss it by no more the one is taken that divides the smaller
            sides of most layers: their blocks are then of one width, which takes fewer operations.

    Returns:
        A config of its own.

    Raises:
        ConfigError: The config is another method's, or its r has no say; not exactly one budget is given, or it is no
            positive number; or nothing in the model matches.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64))
        >>> fit_rank(RandLoraConfig(target_modules=["0"]), net, lora_rank=4).r  # 7·(10 + 64) = 518, LoRA's 512
        10
    """
    method = _method(type(config))
    if method is None:
        expected = "a config of this package whose r sets how many numbers are trained"
        raise ConfigError("fit_rank", expected=expected, got=type(config).__name__)
    if (parameters is None) == (lora_rank is None):
        raise ConfigError("fit_rank", expected="one of parameters and lora_rank", got="both or none of them")
    name, budget = ("parameters", parameters) if lora_rank is None else ("lora_rank", lora_rank)
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise ConfigError(name, expected="an integer of 1 or more", got=repr(budget))
    layers = _layers(_with(config, r=1), model)
    if lora_rank is not None:
        budget = lora_rank * sum(count * sum(shape) for (shape, _), count in layers.items())
    sides = [min(shape) for shape, _ in layers]
    # There are no more singular vectors than the smallest layer has; other methods take any r.
    largest = min if isinstance(config, SvdConfig) else max
    totals = {r: _trained(method, _with(config, r=r), layers) for r in range(1, largest(sides) + 1)}
    near = [r for r in totals if abs(totals[r] - budget) <= within * budget]

    def uneven(r: int) -> int:
        return sum(count for (shape, own), count in layers.items() if own is None and min(shape) % r)

    best = min(near or totals, key=lambda r: (uneven(r) if near else 0, abs(totals[r] - budget)))
    if isinstance(config, RandLoraConfig) and config.alpha == default_alpha(config.bases, config.r):
        return _with(config, r=best, alpha=None)
    return _with(config, r=best)


def count_trained(config: AdapterConfig, model: nn.Module) -> int:
    """How many numbers a config of a method of this package would train, from the shapes of a model's layers alone.

    Args:
        config: The config, with its rank.
        model: The base model, on whatever device; not changed.

    Raises:
        ConfigError: Nothing in the model matches.
    """
    method = next(method for method in CATALOGUE if method.config is type(config))
    return _trained(method, config, _layers(config, model))


def _trained(method: Method, config: AdapterConfig, layers: _Layers) -> int:
    return sum(
        count * method.trained(config if own is None else _with(config, r=own), *shape)
        for (shape, own), count in layers.items()
    )


def _layers(config: Any, model: nn.Module) -> _Layers:
    """The layers that a config matches."""
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    targeted = config.target_modules or config.target_parameters
    layers: _Layers = Counter()
    for name, layer in (tuner.matched_layers(config, model) if targeted else {}).items():
        own = by_pattern(getattr(config, "rank_pattern", {}), pattern_name(name, layer), None)
        layers[layer_shape(layer), own] += math.prod(stack_shape(layer))  # each of a stack has λ and γ of its own
    if not layers:
        raise ConfigError("target_modules", expected="names of layers of the model", got=repr(config.target_modules))
    return layers


def _method(config: Any) -> Method | None:
    """The method of a config class, or of the one that it adds a search to."""
    method = next((method for kind in config.__mro__ for method in CATALOGUE if method.config is kind), None)
    if method is None or "r" not in method.keys:
        return None
    return method if method.trained(config(r=1), 64, 48) != method.trained(config(r=2), 64, 48) else None


def _with(config: Config, **fields: Any) -> Config:
    copied: Any = config
    return replace(copied, **fields)
