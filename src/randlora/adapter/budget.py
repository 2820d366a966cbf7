"""How many numbers a basis rank trains, and the rank for a budget."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from randlora.adapter.tuner import RandLoraTuner
from randlora.adapter.weights import layer_shape, stack_shape
from randlora.config import RandLoraConfig, default_alpha
from randlora.errors import ConfigError


def trained_numbers(config: RandLoraConfig, shapes: Iterable[tuple[int, int]], r: int) -> int:
    """Trained numbers of an adapter with basis rank r, biases and saved modules aside.

    Args:
        config: Its configuration; its own r and `rank_pattern` are not asked.
        shapes: (out, in) of the adapted layers.
        r: Basis rank.
    """
    total = 0
    for shape in shapes:
        small = min(shape)
        bases_count = min(-(-small // r), config.num_bases or small)
        total += config.terms * bases_count * (max(1, round(config.rank_fraction * r)) + small)
    return total


def fit_rank(
    config: RandLoraConfig, model: nn.Module, *, parameters: int | None = None, lora_rank: int | None = None
) -> RandLoraConfig:
    """The config with the basis rank whose number of trained numbers is nearest to a budget.

    Args:
        config: An adapter's configuration; its r is replaced.
        model: The base model, not changed.
        parameters: The budget, in trained numbers.
        lora_rank: Or: as many as LoRA of this rank on the same layers.

    Returns:
        A config of its own.

    Raises:
        ConfigError: Not exactly one budget is given, or it is no positive number, or nothing in the model matches.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64))
        >>> fit_rank(RandLoraConfig(target_modules=["0"]), net, lora_rank=4).r  # 7·(10 + 64) = 518, LoRA's 512
        10
    """
    if (parameters is None) == (lora_rank is None):
        raise ConfigError("fit_rank", expected="one of parameters and lora_rank", got="both or none of them")
    name, budget = ("parameters", parameters) if lora_rank is None else ("lora_rank", lora_rank)
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise ConfigError(name, expected="an integer of 1 or more", got=repr(budget))
    layers = RandLoraTuner.matched_layers(config, model) if config.target_modules or config.target_parameters else {}
    shapes: Counter[tuple[int, int]] = Counter()
    for layer in layers.values():
        shapes[layer_shape(layer)] += math.prod(stack_shape(layer))  # the matrices of a stack have λ and γ of their own
    if not shapes:
        raise ConfigError("target_modules", expected="names of layers of the model", got=repr(config.target_modules))
    if lora_rank is not None:
        budget = lora_rank * sum(count * sum(shape) for shape, count in shapes.items())

    def distance(r: int) -> int:
        return abs(sum(count * trained_numbers(config, [shape], r) for shape, count in shapes.items()) - budget)

    best = min(range(1, max(map(min, shapes)) + 1), key=distance)
    is_default = config.alpha == default_alpha(config.bases, config.r)
    return replace(config, r=best, alpha=None if is_default else config.alpha)
