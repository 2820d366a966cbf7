"""A method config in, the PEFT config it stands for out; what does not fit is refused by its key."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import peft

from randlora.adapter_config import check_choice, check_expressions
from randlora.errors import ConfigError
from randlora.methods import CATALOGUE
from randlora.methods.budget import fits_budget
from randlora.training.config.method_options import options_of
from randlora.training.config.method_table import CHOICES, METHODS
from randlora.training.config.schema import config_of
from randlora.training.config.sections import MethodConfig, resolve

_BESIDE_PROMPTS = ("lora", "rslora", *(method.name for method in CATALOGUE))
"""Methods whose layers hold all that they train, and whose training asks for nothing beside the gradients."""

_TARGETS = ("target_modules", "exclude_modules")
"""Fields that keys of the `method` section set for every method that adapts layers."""


def takes(name: str, field_name: str) -> bool:
    """Whether the config class of a method has a field."""
    return field_name in {entry.name for entry in fields(METHODS[name].config)}


def key_of(method: MethodConfig, field_name: str) -> str:
    """The config key that sets a field of a method's config class, or of the adapter's beside prompts.

    What is a key already stays as it is.
    """
    if field_name.startswith("method"):
        return field_name
    other = beside(method)
    if other is not None and not takes(method.name, field_name):
        return _beside(key_of(other, field_name))
    keys = {own: key for key, own in METHODS[method.name].keys.items()} | {key: key for key in _TARGETS}
    return f"method.{keys.get(field_name, f'options.{field_name}')}"


def adapter_config(method: MethodConfig, **common: Any) -> peft.PeftConfig:
    """The PEFT config of a resolved method config.

    Args:
        method: The method; one of `METHODS`. A rank that is as LoRA's is left at its default; `fit_rank` finds it.
        common: What every method is told about the model: target modules, task type, ...

    Raises:
        ConfigError: A key or an option does not belong to the method, or its value does not fit.
    """
    known = METHODS[method.name]
    _check_keys(method)
    other = beside(method)
    if other is not None:
        with _named_beside():
            adapter_config(other)
    options = options_of(method)
    given = {key: getattr(method, key) for key in known.keys}
    start = dict(known.start)
    if isinstance(method.r, dict):
        if not fits_budget(known.config):
            hint = f"the numbers that {method.name} trains do not depend on a basis rank"
            raise ConfigError("method.r", expected="a number or null", got=repr(method.r), hint=hint)
        given.pop("r")
        start |= known.as_lora(method.r["as_lora"])
    values = {name: given[key] for key, name in known.keys.items() if given.get(key) is not None}
    if method.name == "adalora" and "init_r" not in options:
        values["init_r"] = -(-3 * values["target_r"] // 2)  # PEFT's proportion of the start to the target
    try:
        return known.config(**{**start, **values, **options}, **known.fixed, **common)
    except ConfigError as error:
        key = key_of(method, error.what)
        raise ConfigError(key, expected=error.expected, got=error.got, hint=error.hint) from error
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"method {method.name!r}", got=str(error)) from error


def beside(method: MethodConfig) -> MethodConfig | None:
    """The adapter of the weights that is trained beside a method of prompts, resolved; None where there is none.

    Raises:
        ConfigError: It is no method section, or of a method that cannot stand there.
    """
    key = _beside("method")
    given = method.options.get("adapter")
    if given is None or takes(method.name, "target_modules"):
        return None
    if not isinstance(given, dict):
        raise ConfigError(key, expected="the keys of a method section", got=repr(given))
    with _named_beside():
        other = resolve(config_of({"task": "image-text", "method": given})).method
    check_choice(f"{key}.name", other.name, _BESIDE_PROMPTS)
    return other


def _beside(key: str) -> str:
    """Where a key of a `method` section stands if it is that of an adapter beside prompts."""
    return key.replace("method", "method.options.adapter", 1)


@contextmanager
def _named_beside() -> Iterator[None]:
    """Have errors name the keys of an adapter beside prompts where they stand."""
    try:
        yield
    except ConfigError as error:
        what, hint = _beside(error.what), error.hint.replace("method.", f"{_beside('method')}.")
        raise ConfigError(what, expected=error.expected, got=error.got, hint=hint) from error


def _check_keys(method: MethodConfig) -> None:
    """Check that the method has a use for every key that is given."""
    known = METHODS[method.name]
    for key in ("r", "alpha", "dropout", *CHOICES):
        if key not in known.keys and getattr(method, key) not in (None, 0.0 if key == "dropout" else None):
            hint = f"{method.name} has no such {'choice' if key in CHOICES else 'number'}" + (
                "; see method.options" if key != "dropout" and takes(method.name, key) else ""
            )
            raise ConfigError(f"method.{key}", expected="nothing", got=repr(getattr(method, key)), hint=hint)
    for key in _TARGETS:
        if not takes(method.name, "target_modules") and getattr(method, key) is not None:
            hint = f"{method.name} trains inputs, and adapts no layer"
            raise ConfigError(f"method.{key}", expected="nothing", got=repr(getattr(method, key)), hint=hint)
        check_expressions(f"method.{key}", getattr(method, key))
    if method.target_modules in ([], ""):
        hint = "without the key every linear layer is adapted"
        raise ConfigError("method.target_modules", expected="names of layers", got="none", hint=hint)
