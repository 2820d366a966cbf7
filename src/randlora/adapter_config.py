"""What configs of adapters share, in PEFT's form: `OwnConfig` of all methods, `AdapterConfig` of those on layers."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import peft
from peft import PeftConfig

from randlora.errors import ConfigError
from randlora.messages import closest


@dataclass
class OwnConfig(PeftConfig):
    """A configuration with a PEFT type of this package.

    Attributes:
        type_name: The method's own PEFT type: PEFT without this package stops at it.
        prefix: What the names of the trained tensors begin with.
    """

    type_name: ClassVar[str]
    prefix: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = getattr(peft.PeftType, self.type_name, self.type_name)

    def describe(self) -> dict[str, str]:
        """What a model card says of the method: name of a fact -> Markdown; `method`, `update` and its numbers."""
        return {}


@dataclass
class AdapterConfig(OwnConfig):
    """Which layers an adapter is put on, and what is trained beside it.

    Attributes:
        dropout: Probability of dropping an input of the update while training. Default 0.
        target_modules: Names of the modules to adapt: a list of suffixes, one regular expression, or "all-linear".
            None takes PEFT's default for the architecture.
        target_parameters: Names of parameters to adapt in place of modules, or beside them: a list of suffixes such as
            `mlp.experts.gate_up_proj`. A stack (experts, ·, ·) gets one update per expert.
        exclude_modules: Names to leave out: a list of suffixes or one regular expression.
        modules_to_save: Names of further modules to train whole and to save.
        bias: Which biases to train: `none` (default), `all` or the adapted layers' (the prefix and `only`).
        layers_to_transform: Index or indices of the blocks to adapt; None adapts all. A layer's block is the first
            number in its name; layers in no block are left out unless their full name is listed.
        layers_pattern: Name of the block list, where it is not one of the usual names.
        fan_in_fan_out: Accepted for PEFT's callers; the layout is read from the layer itself.
        base_shapes: Adapted layer -> its shape, blocks with the same shapes in one entry; filled in, checked at load.
        base_blocks: Block list with adapted layers -> its length; filled in, checked at load.

    What is filled in goes into the adapter's own copy of the config (`model.peft_config[name]`): the object given to
    PEFT can be used again.

    Raises:
        ConfigError: A value is out of range or does not go with another.
    """

    dropout: float = 0.0
    target_modules: list[str] | set[str] | str | None = None
    exclude_modules: list[str] | set[str] | str | None = None
    target_parameters: list[str] | None = None
    modules_to_save: list[str] | None = None
    bias: str = "none"
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    fan_in_fan_out: bool = False
    base_shapes: dict[str, str] | None = None
    base_blocks: dict[str, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_modules", "exclude_modules", "layers_pattern"):
            check_expressions(name, getattr(self, name))
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if isinstance(value, (list, tuple)):
                setattr(self, name, set(value))
        for name in ("modules_to_save", "target_parameters"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(name, expected="a list of names", got=repr(getattr(self, name)))
        check_choice("bias", self.bias, ("none", "all", f"{self.prefix}only"))
        blocks = self.layers_to_transform
        for block in [] if blocks is None else blocks if isinstance(blocks, (list, tuple, set)) else [blocks]:
            if type(block) is not int or block < 0:
                raise ConfigError("layers_to_transform", expected="block indices of 0 or more", got=repr(blocks))
        if self.layers_pattern and self.layers_to_transform is None:
            raise ConfigError("layers_pattern", hint="it needs layers_to_transform; give that too, or leave both out")
        check_entries("base_shapes", self.base_shapes, str)
        check_entries("base_blocks", self.base_blocks, int)
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ConfigError("dropout", expected="a probability in [0, 1)", got=repr(self.dropout))


def is_number(value: Any) -> bool:
    """Whether a value is an int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_entries(name: str, value: Any, kind: type) -> None:
    """Raise a ConfigError unless a value is None or a dictionary of names with an entry of some kind each."""
    if value is not None and not (
        isinstance(value, dict) and all(isinstance(k, str) and type(entry) is kind for k, entry in value.items())
    ):
        expected = "a text for each of some names" if kind is str else "a whole number for each of some names"
        raise ConfigError(name, expected=expected, got=repr(value))


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise a ConfigError that names the nearest right value unless `value` is one of `choices`.

    Args:
        name: The config key, for the message.
        value: What was given.
        choices: What is allowed.

    Raises:
        ConfigError: It is not one of them.
    """
    if value in choices:
        return
    near = closest(str(value), choices)
    raise ConfigError(
        name,
        expected="one of " + ", ".join(choices),
        got=repr(value),
        hint=f"did you mean {near!r}?" if near else "",
    )


def check_positive(name: str, value: Any) -> None:
    """Raise a ConfigError unless a value is a finite number above 0."""
    if not is_number(value) or not math.isfinite(value) or value <= 0:
        raise ConfigError(name, expected="a number above 0", got=repr(value))


def check_count(name: str, value: Any, hint: str = "") -> None:
    """Raise a ConfigError unless a value is an integer of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(name, expected="an integer of 1 or more", got=repr(value), hint=hint)


def check_seed(seed: Any) -> None:
    """Raise a ConfigError unless a value is a seed."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ConfigError("seed", expected="an integer in [0, 2^63)", got=repr(seed))


def check_expressions(name: str, value: Any) -> None:
    """Raise a ConfigError unless a value is None, one regular expression, or a collection of names."""
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise ConfigError(name, expected="a regular expression", got=f"{value!r}: {error}") from error
    elif value is not None and not (
        isinstance(value, (list, tuple, set)) and all(isinstance(entry, str) for entry in value)
    ):
        raise ConfigError(name, expected="a list of names or one regular expression", got=repr(value))
