"""RandLoRA with the numbers of a plain one, spread over its layers by what they are worth on held-out data.

RandLoRA's `r` is a budget and no rank of ΔW; `randlora.training.run.layer_gains` finds what each layer gains.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from randlora.adapter_config import check_count
from randlora.errors import ConfigError
from randlora.methods.randlora import RandLoraConfig, RandLoraLayer


@dataclass
class AutoRandLoraConfig(RandLoraConfig):
    """Configuration of the search: that of the RandLoRA which is trained to find what each layer gains.

    The adapter that a run leaves is RandLoRA's, with a `rank_pattern`.

    Attributes:
        r: Basis rank of every layer in the search. The training has as many numbers as it gives, otherwise spread.
        search_steps: Optimizer steps of the search. None means as many as the training has.

    Raises:
        ConfigError: A value is out of range or does not go with another.
    """

    search_steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bases == "peft":
            hint = "PEFT has one rank per adapter"
            raise ConfigError("bases", expected="other than 'peft' where r is found by layer", got="'peft'", hint=hint)
        if self.search_steps is not None:
            check_count("search_steps", self.search_steps)


def spread_numbers(
    config: RandLoraConfig, layers: Mapping[str, Sequence[RandLoraLayer]], gains: Mapping[str, float]
) -> dict[str, int]:
    """The r of each layer: one basis for every layer, and what is left of the numbers in proportion to the gains.

    Args:
        config: Its r says how many numbers there are.
        layers: Name of a layer -> its matrices, which have one r.
        gains: Name of a layer -> what its numbers were worth. One of 0 or less gets no more than its basis; where all
            are, every layer keeps the r of the config.

    Returns:
        Name -> the r whose number of trained numbers is nearest to the layer's part.
    """

    def trained(name: str, r: int) -> int:
        shapes = [((layer.out_features, layer.in_features), math.prod(layer.stack)) for layer in layers[name]]
        return sum(count * config.trained_numbers(shape, r) for shape, count in shapes)

    largest = {name: max(min(layer.out_features, layer.in_features) for layer in layers[name]) for name in layers}
    least = {name: trained(name, r) for name, r in largest.items()}
    left = sum(trained(name, config.r) - least[name] for name in layers)
    gaining = sorted((name for name in layers if gains[name] > 0), key=lambda name: -gains[name])
    if not gaining:
        return dict.fromkeys(layers, config.r)
    total, over, ranks = sum(gains[name] for name in gaining), 0.0, dict(largest)
    for name in gaining:
        # Small r are far apart: what one layer could not be given, or has too much, is the next one's.
        part = least[name] + left * gains[name] / total + over
        ranks[name] = min(range(1, largest[name] + 1), key=lambda r: abs(trained(name, r) - part))
        over = part - trained(name, ranks[name])
    return ranks
