"""The keys of a training config and the kinds of values they take."""

import dataclasses
import difflib
import types
from collections.abc import Iterable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from randlora.adapter_config import check_choice
from randlora.errors import ConfigError
from randlora.training.config import TrainConfig

_OPTIONS = "method.options."
"""What lies below is checked against the method's own config class."""


def keys(section: type = TrainConfig, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> type, of every section and every value of a config class."""
    found: dict[str, Any] = {}
    for name, kind in get_type_hints(section).items():
        found[prefix + name] = kind
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            found |= keys(kind, f"{prefix}{name}.")
    return found


def check_key(key: str, known: Iterable[str] | None = None) -> None:
    """Check that a dotted key exists.

    Args:
        key: The key.
        known: The keys there are; None means those of `TrainConfig`.

    Raises:
        ConfigError: It does not; the message names the nearest one that does.
    """
    known = list(keys() if known is None else known)
    if key in known or (key.startswith(_OPTIONS) and _OPTIONS[:-1] in known):
        return
    near = difflib.get_close_matches(key, known, n=1)
    if not near:  # right name, wrong or forgotten section
        last = key.rpartition(".")[2]
        near = [name for name in known if name.rpartition(".")[2] == last][:1]
    raise ConfigError(key, expected="a known config key", hint=f"did you mean {near[0]}?" if near else "see --help")


def check_values(config: Any, prefix: str = "") -> None:
    """Check every value of a config against its type, so that configs built in Python are held to it too.

    Raises:
        ConfigError: A value is of another type, or not one of its choices.
    """
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        check_value(prefix + name, value, kind)
        if dataclasses.is_dataclass(kind):
            check_values(value, f"{prefix}{name}.")


def check_value(key: str, value: Any, kind: Any) -> None:
    """Check one value.

    Raises:
        ConfigError: It is not of the type `kind`.
    """
    choices = [part for part in (kind, *get_args(kind)) if get_origin(part) is Literal]
    if choices and isinstance(value, str):
        check_choice(key, value, get_args(choices[0]))
    elif get_origin(kind) is Literal:
        check_choice(key, value, get_args(kind))
    elif _has_surrogates(value):
        raise ConfigError(key, expected="a name in UTF-8", got=repr(value), hint="rename the file")
    elif not fits(value, kind):
        raise ConfigError(key, expected=_describe(kind), got=repr(value))


def _has_surrogates(value: Any) -> bool:
    """Whether a string stands for bytes that are no text, as of file names from a command line."""
    return isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value)


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, one of the kinds that the config classes are made of."""
    if get_origin(kind) in (Union, types.UnionType):
        return any(fits(value, option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is dict:
        values = get_args(kind)[1]
        return isinstance(value, dict) and all(isinstance(k, str) and fits(v, values) for k, v in value.items())
    if get_origin(kind) is list:
        return isinstance(value, list) and all(fits(item, get_args(kind)[0]) for item in value)
    if kind in (int, float):  # a bool is an int to Python, but not to a reader of YAML
        return isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
    return kind is Any or isinstance(value, kind)


def _describe(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return " or ".join(f"'{option}'" for option in get_args(kind))
    if get_origin(kind) is list:
        return "a list of strings"
    if get_origin(kind) is dict:
        return "names with a value each"
    if dataclasses.is_dataclass(kind):
        return "a section with keys of its own"
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    return names.get(kind, "null")
