"""Which PEFT config a method's name stands for, and which of its fields the general keys of a config set."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import peft
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from randlora.errors import ConfigError
from randlora.methods import CATALOGUE, PROMPTS
from randlora.methods.auto_randlora import AutoRandLoraConfig
from randlora.methods.autolora import AutoLoraConfig
from randlora.methods.catalogue import HIGHEST_LORA_RATE
from randlora.methods.randlora import RandLoraConfig, default_alpha
from randlora.methods.randlora.method import METHOD as RANDLORA


@dataclass(frozen=True)
class PeftMethod:
    """One row of the table.

    Attributes:
        config: Its config class; fields that no key sets can be given in `method.options`.
        keys: Key of the `method` section -> field of the config class.
        fixed: Field -> value that makes the method what it is.
        start: Field -> value that an option may change.
        as_lora: See `Method`.
        highest_rate: See `Method`.
    """

    config: type[peft.PeftConfig]
    keys: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)
    as_lora: Callable[[int], Mapping[str, Any]] = lambda _: {}
    highest_rate: float = math.inf

    def default(self, key: str) -> Any:
        """The config class's default of what a key sets; None where it has no such field."""
        found = {entry.name: entry.default for entry in fields(self.config)}
        return found.get(self.keys.get(key, ""))


def _keys(*same: str, **renamed: str) -> dict[str, str]:
    return {**{key: key for key in same}, **renamed}


_LORA = _keys("r", alpha="lora_alpha", dropout="lora_dropout")

METHODS: dict[str, PeftMethod] = {
    **{
        method.name: PeftMethod(
            method.config,
            _keys(*method.keys),
            start=method.start,
            as_lora=method.as_lora,
            highest_rate=method.highest_rate,
        )
        for method in CATALOGUE
    },
    **{method.name: PeftMethod(method.config, start=method.start) for method in PROMPTS},
    # LoRA, what it starts from, how it is scaled, and how its rank is spent.
    "lora": PeftMethod(peft.LoraConfig, _LORA, highest_rate=HIGHEST_LORA_RATE),
    "rslora": PeftMethod(peft.LoraConfig, _LORA, {"use_rslora": True}, highest_rate=3e-4),
    "dora": PeftMethod(peft.LoraConfig, _LORA, {"use_dora": True}, highest_rate=HIGHEST_LORA_RATE),
    "pissa": PeftMethod(peft.LoraConfig, _LORA, {"init_lora_weights": "pissa"}, highest_rate=HIGHEST_LORA_RATE),
    "adalora": PeftMethod(
        peft.AdaLoraConfig,
        _keys(r="target_r", alpha="lora_alpha", dropout="lora_dropout"),
        {"total_step": 2**31},  # the trainer sets the number of its steps
    ),
    "autolora": PeftMethod(
        AutoLoraConfig,
        _LORA,
        # A search from the singular vectors of the weight, or of DoRA's norms, would be another one.
        {"init_lora_weights": True, "use_dora": False, "rank_pattern": {}, "target_parameters": None},
        highest_rate=HIGHEST_LORA_RATE,
    ),
    "auto_randlora": PeftMethod(
        AutoRandLoraConfig,
        _keys(*RANDLORA.keys),
        # What is found is an r for each layer, with all bases that this r has room for.
        {"rank_pattern": {}, "num_bases": None, "terms": 1},
    ),
    # Combinations of frozen random or shared numbers.
    "vera": PeftMethod(peft.VeraConfig, _keys("r", dropout="vera_dropout", seed="projection_prng_key")),
    "vblora": PeftMethod(peft.VBLoRAConfig, _keys("r", dropout="vblora_dropout")),
    "peft_randlora": PeftMethod(
        peft.RandLoraConfig,
        _keys("r", alpha="randlora_alpha", dropout="randlora_dropout", seed="projection_prng_key"),
    ),
    # Other shapes of ΔW.
    "fourierft": PeftMethod(peft.FourierFTConfig, _keys(alpha="scaling", seed="random_loc_seed")),
    "loha": PeftMethod(peft.LoHaConfig, _keys("r", "alpha")),
    "lokr": PeftMethod(peft.LoKrConfig, _keys("r", "alpha")),
    "hira": PeftMethod(peft.HiraConfig, _keys("r", dropout="hira_dropout")),
    "miss": PeftMethod(peft.MissConfig, _keys("r", dropout="miss_dropout"), highest_rate=HIGHEST_LORA_RATE),
    "shira": PeftMethod(peft.ShiraConfig, _keys("r", seed="random_seed")),
    "c3a": PeftMethod(peft.C3AConfig),
    # Rotations and scalings of the weight or of its output.
    "oft": PeftMethod(peft.OFTConfig),
    "boft": PeftMethod(peft.BOFTConfig, _keys(dropout="boft_dropout")),
    "hra": PeftMethod(peft.HRAConfig, _keys("r")),
    # PEFT's own choice of feed-forward modules by architecture cannot be loaded again with "all-linear".
    "ia3": PeftMethod(peft.IA3Config, start={"feedforward_modules": []}),
}
"""Methods whose result is a PEFT adapter."""

_NOT_SERVED = {
    "ADAPTION_PROMPT": "it is put into Llama's attention as a whole, not on layers",
    "CARTRIDGE": "prompt learning needs a language model's cache",
    "CPT": "prompt learning needs a language model's input",
    "MULTITASK_PROMPT_TUNING": "prompt learning needs a language model's input",
    "POLY": "it needs a task's number beside each example",
    "PREFIX_TUNING": "prompt learning needs a language model's cache",
    "PROMPT_TUNING": "prompt learning needs a language model's input",
    "P_TUNING": "prompt learning needs a language model's input",
    "SHADOW": "it trains a model of its own beside this one",
    "TRAINABLE_TOKENS": "it trains rows of the vocabulary, which the task does not name",
    "XLORA": "it mixes adapters that are trained already",
}
"""PEFT's types that a run cannot train, and why."""

_SEEDS = ("projection_prng_key", "projection_seed", "proj_seed", "random_loc_seed")


def _of_peft(config: type[peft.PeftConfig]) -> PeftMethod:
    """A tuner of PEFT's that has no row of its own: its keys are found by their names, the others are options."""
    names = [entry.name for entry in fields(config)]
    found = {"r": ["r"], "alpha": [n for n in names if n == "alpha" or n.endswith("_alpha")]}
    found["dropout"] = [n for n in names if n.endswith("_dropout") and n != "module_dropout"]
    found["seed"] = [n for n in names if n in _SEEDS]
    return PeftMethod(config, {key: own[0] for key, own in found.items() if own and own[0] in names})


def _others_of_peft() -> dict[str, PeftMethod]:
    """PEFT's other tuners by PEFT's names, from its registry."""
    known = {method.config for method in METHODS.values()}
    return {
        str(kind.value).lower(): _of_peft(config)
        for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if config not in known and kind.value not in _NOT_SERVED and config.__module__.startswith("peft.")
    }


METHODS |= _others_of_peft()


def check_method(name: str) -> None:
    """Say of a method of PEFT's why a run cannot train it.

    Raises:
        ConfigError: It is one of those.
    """
    reason = _NOT_SERVED.get(name.upper())
    if reason is not None:
        raise ConfigError("method.name", expected="a method that adapts layers", got=name, hint=reason)


LORAS = ("lora", "rslora", "dora", "pissa", "adalora", "autolora")
"""LoRA and its kin, whose r is a rank of LoRA's."""


AFTER_SEARCH = {"autolora": "lora", "auto_randlora": "randlora"}
"""Methods that begin with a search for the r of each layer -> the method that is trained with what was found."""


CHOICES = ("bases", "sparsity", "seed", "strategy")
"""Keys of the `method` section, beside the numbers r and alpha, that only some methods have a use for."""


def is_randlora(name: str) -> bool:
    """Whether a method is RandLoRA or one that extends it."""
    return name in METHODS and issubclass(METHODS[name].config, RandLoraConfig)


Rank = int | dict[Literal["as_lora"], int] | None
"""A method's r in a config: a number, a LoRA whose budget decides, or what is the default."""


def default_keys(name: str, r: Rank, alpha: float | None, bases: str | None) -> tuple[Rank, float | None]:
    """Rank and alpha with the method's defaults filled in.

    None where a method has no such number, or alpha's default follows from a rank that waits for the model.

    Args:
        name: The method.
        r: What the config gives.
        alpha: What the config gives.
        bases: Family of RandLoRA's bases.
    """
    if name not in METHODS:
        return r, alpha
    if r is None:
        r = 16 if name in LORAS else METHODS[name].default("r")
    if isinstance(r, dict):
        return r, alpha
    if alpha is None and is_randlora(name):
        alpha = default_alpha(bases or METHODS[name].default("bases"), r or 1)
    elif alpha is None:
        alpha = 2.0 * (r or 1) if name in LORAS else METHODS[name].default("alpha")
    return r, alpha
