"""A method config in, the PEFT config it stands for out; what does not fit is refused by its key."""

from dataclasses import fields
from typing import Any, get_args, get_type_hints

import peft

from randlora.adapter_config import check_choice
from randlora.errors import ConfigError
from randlora.methods import CATALOGUE
from randlora.methods.budget import fits_budget
from randlora.training.config.method_table import CHOICES, METHODS
from randlora.training.config.schema import check_key, check_value, config_of
from randlora.training.config.sections import MethodConfig, resolve

_BESIDE_PROMPTS = ("lora", "rslora", *(method.name for method in CATALOGUE))
"""Methods whose layers hold all that they train, and whose training asks for nothing beside the gradients."""

_TARGETS = ("target_modules", "exclude_modules")
"""Fields that keys of the `method` section set for every method that adapts layers."""

_SET = (*_TARGETS, "modules_to_save", "classes", "word_ids")
"""Fields that the training path sets itself."""


def takes(name: str, field_name: str) -> bool:
    """Whether the config class of a method has a field."""
    return field_name in {entry.name for entry in fields(METHODS[name].config)}


def key_of(name: str, field_name: str) -> str:
    """The config key that sets a field of a method's config class."""
    keys = {own: key for key, own in METHODS[name].keys.items()} | {key: key for key in _TARGETS}
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
        adapter_config(other)
    _check_options(method)
    if method.options.get("feedforward_modules") and not isinstance(method.target_modules, list):
        hint = "PEFT wants the feed-forward modules to be among them"
        raise ConfigError("method.target_modules", expected="a list", got=repr(method.target_modules), hint=hint)
    given = {key: getattr(method, key) for key in known.keys}
    start = dict(known.start)
    if isinstance(method.r, dict):
        if not fits_budget(known.config):
            hint = f"the numbers that {method.name} trains do not depend on a basis rank"
            raise ConfigError("method.r", expected="a number or null", got=repr(method.r), hint=hint)
        given.pop("r")
        start |= known.as_lora(method.r["as_lora"])
    values = {name: given[key] for key, name in known.keys.items() if given.get(key) is not None}
    if method.name == "adalora" and "init_r" not in method.options:
        values["init_r"] = -(-3 * values["target_r"] // 2)  # PEFT's proportion of the start to the target
    try:
        return known.config(**{**start, **values, **method.options}, **known.fixed, **common)
    except ConfigError as error:
        key = key_of(method.name, error.what)
        raise ConfigError(key, expected=error.expected, got=error.got, hint=error.hint) from error
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"method {method.name!r}", got=str(error)) from error


def beside(method: MethodConfig) -> MethodConfig | None:
    """The adapter of the weights that is trained beside a method of prompts, resolved; None where there is none.

    Raises:
        ConfigError: It is no method section, or of a method that cannot stand there.
    """
    key = "method.options.adapter"
    given = method.options.get("adapter")
    if given is None or takes(method.name, "target_modules"):
        return None
    if not isinstance(given, dict):
        raise ConfigError(key, expected="the keys of a method section", got=repr(given))
    try:
        other = resolve(config_of({"task": "image-text", "method": given})).method
    except ConfigError as error:
        what = error.what.replace("method", key, 1)
        raise ConfigError(what, expected=error.expected, got=error.got, hint=error.hint) from error
    check_choice(f"{key}.name", other.name, _BESIDE_PROMPTS)
    return other


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


def _check_options(method: MethodConfig) -> None:
    known = METHODS[method.name]
    taken = {*_SET, *known.keys.values(), *known.fixed, *(entry.name for entry in fields(peft.PeftConfig))}
    kinds = {name: kind for name, kind in get_type_hints(known.config).items() if takes(method.name, name)}
    keys = [f"method.options.{name}" for name in kinds if name not in taken]
    for name, value in method.options.items():
        key = f"method.options.{name}"
        by_name = {field_name: general for general, field_name in known.keys.items()}
        if name in by_name:
            raise ConfigError(key, expected="a known config key", hint=f"did you mean method.{by_name[name]}?")
        check_key(key, keys)
        if _is_plain(kinds[name]):
            check_value(key, value, kinds[name])


def _is_plain(kind: Any) -> bool:
    """Whether a type is made of numbers, strings, truth values and None, so that a value can be checked against it."""
    parts = get_args(kind)
    plain = all(isinstance(part, (str, int)) or _is_plain(part) for part in parts)
    return kind in (int, float, str, bool, type(None)) or (bool(parts) and plain)
