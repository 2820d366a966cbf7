"""A training config held against its types by pydantic; what is wrong with it in one line."""

import dataclasses
import types
from collections.abc import Iterable, Mapping
from operator import attrgetter
from types import NoneType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from pydantic import ValidationError

from randlora.adapter_config import check_choice
from randlora.errors import ConfigError
from randlora.messages import closest
from randlora.tasks import TASKS
from randlora.tasks.suites.registry import with_suite
from randlora.training.config.method_table import check_method
from randlora.training.config.sections import MethodConfig, OptimizationConfig, TrainConfig, adapter_of
from randlora.training.config.synonyms import INSTEAD, OPEN, SYNONYMS

_LONGEST = 300
"""Letters of a wrong value that a message shows."""

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    list: "a list",
    dict: "names with a value each",
    NoneType: "null",
}
_ENTRIES = {int: "whole numbers", str: "strings", dict: "names with a number each"}


def keys(task: str, section: type = TrainConfig, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> type, of every section and every value of a config for a task."""
    found: dict[str, Any] = {}
    hints = get_type_hints(section, include_extras=True)
    if section is TrainConfig:
        hints["data"] = TASKS.get(task, TASKS[TrainConfig.task]).data_class
    for name, kind in hints.items():
        found[prefix + name] = kind
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            found |= keys(task, kind, f"{prefix}{name}.")
    return found


def config_of(values: Mapping[str, Any]) -> TrainConfig:
    """The config of nested keys and values, as YAML has them.

    Raises:
        ConfigError: A key is unknown, or a value is of another type, out of range, or not one of its choices.
    """
    values = _filled(values)
    try:
        config: TrainConfig = adapter_of(TrainConfig).validate_python(values)
    except ValidationError as error:
        _refuse_first(error, values)
    return config


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with those of the suite that the data section names, and a data section if there is none."""
    task, data = values.get("task", TrainConfig.task), values.get("data", {})
    if isinstance(data, Mapping) and isinstance(task, str) and task in TASKS:
        data = with_suite(task, data, [field.name for field in dataclasses.fields(TASKS[task].data_class)])
    return {**values, "data": data}


def check_values(config: TrainConfig) -> None:
    """Hold a config that was built in Python to the same types.

    Raises:
        ConfigError: See `config_of`.
    """
    if not isinstance(config, TrainConfig):
        raise ConfigError("config", expected="a TrainConfig", got=type(config).__name__)
    if not isinstance(config.task, str) or config.task not in TASKS:
        refuse("task", config.task, keys(TrainConfig.task)["task"])
    if not isinstance(config.data, TASKS[config.task].data_class):
        expected = f"a {TASKS[config.task].data_class.__name__}, for {config.task}"
        raise ConfigError("data", expected=expected, got=type(config.data).__name__)
    for name, section in (("method", MethodConfig), ("optimization", OptimizationConfig)):
        if not isinstance(getattr(config, name), section):
            raise ConfigError(name, expected=describe(section), got=repr(getattr(config, name)))
    for key, kind in keys(config.task).items():
        value = attrgetter(key)(config)
        if not dataclasses.is_dataclass(value) and not _is_yaml(value):
            refuse(key, value, kind)
    config_of(dataclasses.asdict(config))


def _is_yaml(value: Any) -> bool:
    """Whether a value can be written to `config.yaml` and read again, as numbers of NumPy and tuples cannot."""
    if type(value) is dict:
        return all(map(_is_yaml, (*value, *value.values())))
    if type(value) is list:
        return all(map(_is_yaml, value))
    return type(value) in (str, int, float, bool, NoneType)


def check_key(key: str, known: Iterable[str]) -> None:
    """Check that a dotted key exists.

    Args:
        key: The key.
        known: The keys there are.

    Raises:
        ConfigError: It does not; the message names the nearest one that does.
    """
    known = list(known)
    if key in known or any(section in known and key.startswith(f"{section}.") for section in OPEN):
        return
    key_here = key.replace("-", "_")
    last = key_here.rpartition(".")[2]
    same_name = (name for name in known if name.rpartition(".")[2] == last)  # in a wrong or forgotten section
    near = INSTEAD.get(last) or closest(key_here, known) or next(same_name, None) or closest(key_here, SYNONYMS)
    hint = f"did you mean {near}?" if near else "see --keys"
    others = [name for name in TASKS if key in keys(name)]
    raise ConfigError(key, expected="a known config key", hint=f"only of {' and '.join(others)}" if others else hint)


def check_value(key: str, value: Any, kind: Any) -> None:
    """Check one value.

    Raises:
        ConfigError: It is not of the type `kind`.
    """
    if not fits(value, kind):
        refuse(key, value, kind)


def refuse(key: str, value: Any, kind: Any) -> NoReturn:
    """Say what is wrong with a value that is not of the type `kind`.

    Raises:
        ConfigError: Always.
    """
    if _has_surrogates(value):
        raise ConfigError(key, expected="a name in UTF-8", got=repr(value), hint="rename the file")
    if key == "method.name" and isinstance(value, str):
        check_method(value)
    choices = [get_args(part) if get_origin(part) is Literal else () for part in _parts(kind) if part is not NoneType]
    if isinstance(value, str) and len(choices) == 1 and choices[0]:
        check_choice(key, value, choices[0])
    text = repr(value)  # a history has thousands of entries
    raise ConfigError(key, expected=describe(kind), got=text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type."""
    try:
        adapter_of(kind).validate_python(value, strict=not dataclasses.is_dataclass(kind))
    except ValidationError:
        return False
    return not _has_surrogates(value)


def describe(kind: Any) -> str:
    """A type in words; those of `randlora.values` bring their own."""
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin is Annotated:
        return next(part for part in arguments if isinstance(part, str))
    if origin is Literal:
        return " or ".join(f"'{option}'" if isinstance(option, str) else str(option).lower() for option in arguments)
    if len(_parts(kind)) > 1:
        return " or ".join(describe(part) for part in _parts(kind))
    if dataclasses.is_dataclass(kind):
        return "a section with keys of its own"
    if origin is list and arguments:
        return f"a list of {_ENTRIES.get(get_origin(arguments[0]) or arguments[0], 'values')}"
    return _WORDS.get(origin, "another value")


def _parts(kind: Any) -> tuple[Any, ...]:
    """The types that a type is a choice of; itself where it is none."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _refuse_first(error: ValidationError, values: Mapping[str, Any]) -> NoReturn:
    """Say the first fault that pydantic found, by its dotted key."""
    known, fault = keys(str(values.get("task", TrainConfig.task))), error.errors()[0]
    path = [str(part) for part in fault["loc"]]
    if fault["type"] == "unexpected_keyword_argument":
        check_key(".".join(path), known)
    while ".".join(path) not in known:  # an entry of a list, or one of several types
        path.pop()
    value: Any = values
    for part in path:
        value = value[part]
    refuse(".".join(path), value, known[".".join(path)])


def _has_surrogates(value: Any) -> bool:
    """Whether a string stands for bytes that are no text, as of file names from a command line."""
    return isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value)
