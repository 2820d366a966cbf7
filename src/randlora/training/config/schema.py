"""A training config held against its types by pydantic; what is wrong with it in one line."""

import dataclasses
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from randlora.adapter_config import check_choice
from randlora.errors import ConfigError
from randlora.messages import closest
from randlora.tasks import TASKS
from randlora.tasks.suites.registry import with_suite
from randlora.training.config.method_table import check_method
from randlora.training.config.sections import TrainConfig, adapter_of
from randlora.training.config.synonyms import INSTEAD, SYNONYMS

_OPTIONS = "method.options."
"""What lies below is checked against the method's own config class."""
_LONGEST = 300
"""Letters of a wrong value that a message shows."""

_CONFIG: TypeAdapter[TrainConfig] = TypeAdapter(TrainConfig)


def keys(task: str, section: type = TrainConfig, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> type, of every section and every value of a config for a task."""
    found: dict[str, Any] = {}
    hints = get_type_hints(section, include_extras=True)
    if section is TrainConfig:
        hints["data"] = TASKS.get(task, TASKS[TrainConfig.task]).data_class
    for name, kind in ((entry.name, hints[entry.name]) for entry in dataclasses.fields(section)):
        found[prefix + name] = kind
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            found |= keys(task, kind, f"{prefix}{name}.")
    return found


def config_of(values: Mapping[str, Any]) -> TrainConfig:
    """The config of nested keys and values.

    Args:
        values: As YAML has them; a data section may be a dataclass already.

    Raises:
        ConfigError: A key is unknown, or a value is of another type, out of range, or not one of its choices.
    """
    values = _filled(values)
    try:
        return _CONFIG.validate_python(dict(values))
    except ValidationError as error:
        raise _explained(error, values) from error


def _filled(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values with those of the suite that the data section names."""
    task, data = values.get("task", TrainConfig.task), values.get("data")
    if not isinstance(data, Mapping) or not isinstance(task, str) or task not in TASKS:
        return values
    fields = [field.name for field in dataclasses.fields(TASKS[task].data_class)]
    return {**values, "data": with_suite(task, data, fields)}


def check_values(config: TrainConfig) -> None:
    """Hold a config that was built in Python to the same types.

    Raises:
        ConfigError: See `config_of`.
    """
    if config.task in TASKS and not isinstance(config.data, TASKS[config.task].data_class):
        expected = f"a {TASKS[config.task].data_class.__name__}, for {config.task}"
        raise ConfigError("data", expected=expected, got=type(config.data).__name__)
    for name in ("method", "optimization", "data"):
        if not dataclasses.is_dataclass(getattr(config, name)):
            raise ConfigError(name, expected="a section with keys of its own", got=repr(getattr(config, name)))
    config_of(dataclasses.asdict(config))


def check_key(key: str, known: Iterable[str]) -> None:
    """Check that a dotted key exists.

    Args:
        key: The key.
        known: The keys there are.

    Raises:
        ConfigError: It does not; the message names the nearest one that does.
    """
    known = list(known)
    if key in known or (key.startswith(_OPTIONS) and _OPTIONS[:-1] in known):
        return
    key_here = key.replace("-", "_")
    last = key_here.rpartition(".")[2]
    near = INSTEAD.get(last) or closest(key_here, known)
    if not near:  # right name, wrong or forgotten section
        near = next((name for name in known if name.rpartition(".")[2] == last), None)
    near = near or closest(key_here, SYNONYMS)
    hint = f"did you mean {near}?" if near else "see --keys"
    others = [name for name in TASKS if key in keys(name)]
    raise ConfigError(key, expected="a known config key", hint=f"only of {' and '.join(others)}" if others else hint)


def check_value(key: str, value: Any, kind: Any) -> None:
    """Check one value.

    Raises:
        ConfigError: It is not of the type `kind`.
    """
    if _has_surrogates(value):
        raise ConfigError(key, expected="a name in UTF-8", got=repr(value), hint="rename the file")
    if fits(value, kind):
        return
    if key == "method.name" and isinstance(value, str):
        check_method(value)
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    choices = [get_args(part) for part in kinds if get_origin(part) is Literal]
    if choices and isinstance(value, str) and len(choices) == len([part for part in kinds if part is not type(None)]):
        check_choice(key, value, choices[0])
    text = repr(value)  # a history has thousands of entries
    raise ConfigError(key, expected=describe(kind), got=text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type."""
    if _has_surrogates(value):
        return False
    try:
        adapter_of(kind).validate_python(value, strict=not dataclasses.is_dataclass(kind))
    except ValidationError:
        return False
    return True


def describe(kind: Any) -> str:
    """A type in words; those of `randlora.values` bring their own."""
    if get_origin(kind) is Annotated:
        return next(part for part in get_args(kind) if isinstance(part, str))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(describe(option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return " or ".join(f"'{option}'" for option in get_args(kind))
    if dataclasses.is_dataclass(kind):
        return "a section with keys of its own"
    of_mappings = get_origin(kind) is list and get_origin(get_args(kind)[0]) is dict
    lists = "a list of names with a number each" if of_mappings else "a list of strings"
    containers = {list: lists, dict: "names with a value each"}
    if get_origin(kind) in containers:
        return containers[get_origin(kind)]
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}  # of method.options
    return (names | {list: "a list", dict: containers[dict]}).get(kind, "null")


def _explained(error: ValidationError, values: Mapping[str, Any]) -> ConfigError:
    """The first fault as an error of ours, by its dotted key."""
    task = values.get("task", TrainConfig.task)
    known = keys(task if isinstance(task, str) else "")
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        try:
            check_key(".".join(path), known)
        except ConfigError as unknown:
            return unknown
    key = next(".".join(path[:end]) for end in range(len(path), 0, -1) if ".".join(path[:end]) in known)
    value: Any = values
    for part in key.split("."):
        value = value[part] if isinstance(value, Mapping) else getattr(value, part)
    try:
        check_value(key, value, known[key])
    except ConfigError as wrong:
        return wrong
    return ConfigError(key, expected=describe(known[key]), got=repr(value))


def _has_surrogates(value: Any) -> bool:
    """Whether a string stands for bytes that are no text, as of file names from a command line."""
    return isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value)
