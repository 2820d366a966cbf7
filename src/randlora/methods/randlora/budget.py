"""The basis rank for a budget."""

import math
from collections import Counter
from dataclasses import replace
from typing import TypeVar

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from torch import nn

from randlora.adapter.weights import layer_shape, stack_shape
from randlora.errors import ConfigError
from randlora.methods.randlora.config import RandLoraConfig, default_alpha

Config = TypeVar("Config", bound=RandLoraConfig)


def fit_rank(
    config: Config, model: nn.Module, *, parameters: int | None = None, lora_rank: int | None = None
) -> Config:
    """The config with the basis rank whose number of trained numbers is nearest to a budget.

    Args:
        config: An adapter's configuration; its r is replaced, a hybrid adapter's lora_r is not.
        model: The base model, not changed.
        parameters: The budget, in trained numbers.
        lora_rank: Or: as many as LoRA of this rank on the same layers.

    Returns:
        A config of its own.

    Raises:
        ConfigError: The config is another method's; not exactly one budget is given, or it is no positive number; or
            nothing in the model matches.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64))
        >>> fit_rank(RandLoraConfig(target_modules=["0"]), net, lora_rank=4).r  # 7·(10 + 64) = 518, LoRA's 512
        10
    """
    if not isinstance(config, RandLoraConfig):
        hint = "spectral adapters train what RandLoRA's of the same r do"  # type: ignore[unreachable] # by annotation
        raise ConfigError("fit_rank", expected="a RandLoraConfig or HybridConfig", got=type(config).__name__, hint=hint)
    if (parameters is None) == (lora_rank is None):
        raise ConfigError("fit_rank", expected="one of parameters and lora_rank", got="both or none of them")
    name, budget = ("parameters", parameters) if lora_rank is None else ("lora_rank", lora_rank)
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise ConfigError(name, expected="an integer of 1 or more", got=repr(budget))
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    layers = tuner.matched_layers(config, model) if config.target_modules or config.target_parameters else {}
    shapes: Counter[tuple[int, int]] = Counter()
    for layer in layers.values():
        shapes[layer_shape(layer)] += math.prod(stack_shape(layer))  # the matrices of a stack have λ and γ of their own
    if not shapes:
        raise ConfigError("target_modules", expected="names of layers of the model", got=repr(config.target_modules))
    if lora_rank is not None:
        budget = lora_rank * sum(count * sum(shape) for shape, count in shapes.items())

    def distance(r: int) -> int:
        return abs(sum(count * config.trained_numbers(shape, r) for shape, count in shapes.items()) - budget)

    best = min(range(1, max(map(min, shapes)) + 1), key=distance)
    is_default = config.alpha == default_alpha(config.bases, config.r)
    return replace(config, r=best, alpha=None if is_default else config.alpha)
