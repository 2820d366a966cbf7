"""What a method is, said once and in the method's own file: from here the other floors know it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from peft.tuners.tuners_utils import BaseTuner

from randlora.adapter import AdapterTuner
from randlora.adapter_config import AdapterConfig, OwnConfig

GENERAL_KEYS = ("r", "alpha", "dropout", "bases", "sparsity", "seed", "strategy")
"""Fields that mean the same in every config class that has them; a training config sets them by these names."""


@dataclass(frozen=True)
class Shown:
    """A setting of a method in the table of methods.

    Attributes:
        title: Name and setting.
        values: Field of the config class -> value.
        paper: The RandLoRA paper's percentage of trained numbers on Llama-3-8B (Table 15); None where it has none.
    """

    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    paper: float | None = None


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        name: What configs and the command line call it.
        config: Its config class.
        tuner: Its tuner.
        equation: ΔW, or the adapted layer's output where there is none.
        trained: (config, out, in) -> trained numbers on a linear layer.
        rank: (config, out, in) -> highest rank of ΔW; None where there is no one ΔW, and so no merging.
        shown: Settings in the table of methods.
        start: Field -> value that makes it this method where the config class serves several.
        as_lora: Rank of a LoRA whose number of trained numbers is wanted -> field -> value that follows from it, beside
            the r that is fitted to what is left.
        highest_rate: The highest learning rate by default, where a task's would be too high for it: trainings were
            seen to fail above (docs/log.md).
    """

    name: str
    config: type[AdapterConfig]
    tuner: type[AdapterTuner]
    equation: str
    trained: Callable[[Any, int, int], int]
    rank: Callable[[Any, int, int], int] | None
    shown: tuple[Shown, ...]
    start: Mapping[str, Any] = field(default_factory=dict)
    as_lora: Callable[[int], Mapping[str, Any]] = lambda _: {}
    highest_rate: float = math.inf

    @property
    def keys(self) -> tuple[str, ...]:
        """The general keys that it has a use for."""
        own = {entry.name for entry in fields(self.config)}
        return tuple(key for key in GENERAL_KEYS if key in own)


@dataclass(frozen=True)
class PromptMethod:
    """A method that trains inputs of CLIP's towers, and adapts no layer.

    Attributes:
        name: What configs and the command line call it.
        config: Its config class.
        tuner: Its tuner.
        equation: What is trained, in short.
        trained: (config, the model's `CLIPConfig`) -> trained numbers.
        start: Field -> value that makes it this method where the config class serves several.
    """

    name: str
    config: type[OwnConfig]
    tuner: type[BaseTuner]
    equation: str
    trained: Callable[[Any, Any], int]
    start: Mapping[str, Any] = field(default_factory=dict)


HIGHEST_LORA_RATE = 1e-3
"""See `Method.highest_rate`: that of methods which train a pair of low-rank factors, as LoRA does."""


def diagonal_numbers(config: Any, out: int, inner: int) -> int:
    """n·r + n·m with n = ⌈m/r⌉: λ and γ on a layer with smaller side m, of a config that has an r."""
    m = min(out, inner)
    return -(-m // config.r) * (config.r + m)
