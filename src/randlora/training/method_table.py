"""Which PEFT config a method's name stands for, and which of its fields the general keys of a config set."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import peft

from randlora.methods import CATALOGUE
from randlora.methods.randlora import RandLoraConfig, default_alpha


@dataclass(frozen=True)
class PeftMethod:
    """One row of the table.

    Attributes:
        config: Its config class; fields that no key sets can be given in `method.options`.
        keys: Key of the `method` section -> field of the config class.
        fixed: Field -> value that makes the method what it is.
        start: Field -> value that an option may change.
    """

    config: type[peft.PeftConfig]
    keys: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)

    def default(self, key: str) -> Any:
        """The config class's default of what a key sets; None where it has no such field."""
        found = {entry.name: entry.default for entry in fields(self.config)}
        return found.get(self.keys.get(key, ""))


def _keys(*same: str, **renamed: str) -> dict[str, str]:
    return {**{key: key for key in same}, **renamed}


_LORA = _keys("r", alpha="lora_alpha", dropout="lora_dropout")

METHODS: dict[str, PeftMethod] = {
    **{method.name: PeftMethod(method.config, _keys(*method.keys), start=method.start) for method in CATALOGUE},
    # LoRA, what it starts from, how it is scaled, and how its rank is spent.
    "lora": PeftMethod(peft.LoraConfig, _LORA),
    "rslora": PeftMethod(peft.LoraConfig, _LORA, {"use_rslora": True}),
    "dora": PeftMethod(peft.LoraConfig, _LORA, {"use_dora": True}),
    "pissa": PeftMethod(peft.LoraConfig, _LORA, {"init_lora_weights": "pissa"}),
    "adalora": PeftMethod(
        peft.AdaLoraConfig,
        _keys(r="target_r", alpha="lora_alpha", dropout="lora_dropout"),
        {"total_step": 2**31},  # the trainer sets the number of its steps
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
    "miss": PeftMethod(peft.MissConfig, _keys("r", dropout="miss_dropout")),
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

_AS_LORA = ("lora", "rslora", "dora", "pissa", "adalora")


CHOICES = ("bases", "sparsity", "seed", "strategy")
"""Keys of the `method` section, beside the numbers r and alpha, that only some methods have a use for."""


def default_keys(name: str, r: int | None, alpha: float | None, bases: str | None) -> tuple[int | None, float | None]:
    """Rank and alpha with the method's defaults filled in; None where a method has no such number.

    Args:
        name: The method.
        r: What the config gives.
        alpha: What the config gives.
        bases: Family of RandLoRA's bases.
    """
    if name not in METHODS:
        return r, alpha
    if r is None:
        r = 16 if name in _AS_LORA else METHODS[name].default("r")
    if alpha is None and issubclass(METHODS[name].config, RandLoraConfig):
        alpha = default_alpha(bases or METHODS[name].default("bases"), r or 1)
    elif alpha is None:
        alpha = 2.0 * (r or 1) if name in _AS_LORA else METHODS[name].default("alpha")
    return r, alpha
