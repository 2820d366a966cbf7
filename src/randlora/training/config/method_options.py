"""`method.options` in, the fields of the method's config class out; what PEFT would ignore or trip over is refused."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import peft

from randlora.adapter_config import AdapterConfig, check_count, check_expressions, check_positive
from randlora.errors import ConfigError
from randlora.training.config.method_table import METHODS
from randlora.training.config.peft_limits import INITIALIZATIONS, KINDS, WITHOUT
from randlora.training.config.schema import check_key, check_value
from randlora.training.config.sections import MethodConfig

_SET = ("target_modules", "exclude_modules", "modules_to_save", "classes", "word_ids")
"""Fields that the training path, or a key of the `method` section, sets."""

PATTERNS: dict[str, Callable[[str, Any], None]] = {
    "rank_pattern": check_count,
    "alpha_pattern": check_positive,
    "block_size_pattern": check_count,
    "lambda_pattern": check_positive,
    "n_frequency_pattern": check_count,
}
"""Fields with layer names or regular expressions -> the check of what stands behind each."""


def options_of(method: MethodConfig) -> dict[str, Any]:
    """The options of a method as its config class takes them.

    Raises:
        ConfigError: One does not belong to the method, a value does not fit, or a run cannot do what it says.
    """
    known = METHODS[method.name]
    taken = {*_SET, *known.keys.values(), *known.fixed, *(entry.name for entry in dataclasses.fields(peft.PeftConfig))}
    defaults = {entry.name: entry.default for entry in dataclasses.fields(known.config)}
    kinds = {name: kind for name, kind in get_type_hints(known.config).items() if name in defaults}
    if kinds.get("bias") is str and not issubclass(known.config, AdapterConfig):
        kinds["bias"] = Literal["none", "all", f"{known.config().peft_type.lower()}_only"]
    by_field = {field_name: key for key, field_name in known.keys.items()}
    options = {}
    for name, value in method.options.items():
        key = f"method.options.{name}"
        if name in by_field:
            raise ConfigError(key, expected="a known config key", hint=f"did you mean method.{by_field[name]}?")
        check_key(key, [f"method.options.{field_name}" for field_name in kinds if field_name not in taken])
        options[name] = value
        if type(value) is type(defaults[name]) and value == defaults[name]:
            continue  # what PEFT does anyway
        _check_limits(key, known.config, name, value)
        options[name] = _of_kind(key, value, _first(KINDS, known.config, name) or kinds[name])
        if name in PATTERNS:
            shares = known.config is peft.OSFConfig  # of the rank
            _check_pattern(key, value, check_positive if shares else PATTERNS[name])
        elif name == "layers_pattern":
            check_expressions(key, value)
    _check_together(method)
    return options


def _first(table: Mapping[type, Mapping[str, Any]], config: type, name: str) -> Any:
    """What a table says of a field, of the nearest class that it knows; None where it says nothing."""
    return next((table[kind][name] for kind in config.__mro__ if name in table.get(kind, {})), None)


def _check_limits(key: str, config: type, name: str, value: Any) -> None:
    """Check that the option does in a run what it says."""
    reason = _first(WITHOUT, config, name)
    if reason is not None:
        raise ConfigError(key, expected="nothing", got=repr(value), hint=reason)
    if name == "init_lora_weights" and isinstance(value, str):
        for start, reason in INITIALIZATIONS.items():
            if value.startswith(start):
                raise ConfigError(key, expected="another initialization", got=repr(value), hint=reason)


def _check_together(method: MethodConfig) -> None:
    """Check options that only make sense with others, where PEFT says nothing or something else."""
    options, config = method.options, METHODS[method.name].config
    blocks = options.get("layers_to_transform")
    if options.get("layers_pattern") and blocks is None:
        hint = "it needs layers_to_transform; give that too, or leave both out"
        raise ConfigError("method.options.layers_pattern", hint=hint)
    if blocks is not None and not issubclass(config, AdapterConfig) and not isinstance(method.target_modules, list):
        hint = "PEFT knows the block of a layer by no other way of naming it"
        expected = "a list of names such as [query, value], for options.layers_to_transform"
        raise ConfigError("method.target_modules", expected=expected, got=repr(method.target_modules), hint=hint)
    if options.get("feedforward_modules") and not isinstance(method.target_modules, list):
        hint = "PEFT wants the feed-forward modules to be among them"
        raise ConfigError("method.target_modules", expected="a list", got=repr(method.target_modules), hint=hint)
    if options.get("apply_GS") and options.get("init_weights", True) and isinstance(method.r, int) and not method.r % 2:
        hint = "HRA begins with pairs of equal vectors, which cannot be orthogonalized"
        expected = "false, or init_weights false beside it"
        raise ConfigError("method.options.apply_GS", expected=expected, got="true", hint=hint)
    if config is peft.AdamssConfig and isinstance(method.r, int) and options.get("subspace_rank", 1) > method.r:
        expected = f"at most method.r, {method.r}"
        raise ConfigError("method.options.subspace_rank", expected=expected, got=repr(options["subspace_rank"]))


def _of_kind(key: str, value: Any, kind: Any) -> Any:
    """A value that was held to a type: a section as the class that it stands for, any other as it is."""
    parts = (kind, *get_args(kind))
    section = next((part for part in parts if isinstance(part, type) and dataclasses.is_dataclass(part)), None)
    if section is None:
        if _can_check(kind):
            check_value(key, value, kind)
        return value
    if value is None and type(None) in get_args(kind):
        return None
    if not isinstance(value, dict):
        raise ConfigError(key, expected="a section with keys of its own", got=repr(value))
    entries = _entries(section)
    for name, entry in value.items():
        check_key(f"{key}.{name}", [f"{key}.{known}" for known in entries])
        check_value(f"{key}.{name}", entry, entries[name])
    try:
        return section(**value)
    except ValueError as error:
        raise ConfigError(key, expected="values that PEFT takes", got=str(error)) from error


def _entries(section: type) -> dict[str, Any]:
    """The keys of a section and their types."""
    hints = get_type_hints(section)
    known = {entry.name: hints[entry.name] for entry in dataclasses.fields(section) if entry.init}
    return {name: KINDS.get(section, {}).get(name, kind) for name, kind in known.items()}


def _check_pattern(key: str, pattern: Any, check_entry: Callable[[str, Any], None]) -> None:
    """Check layer names with a value each, of which PEFT checks nothing before it is too late."""
    if not isinstance(pattern, dict):
        raise ConfigError(key, expected="layer names with a value each", got=repr(pattern))
    for name, entry in pattern.items():
        check_expressions(key, name)
        check_entry(f"{key}[{name!r}]", entry)


def _can_check(kind: Any) -> bool:
    """Whether a type is made of YAML's, so that a value can be held to it."""
    if get_origin(kind) is Annotated:  # one of ours
        return True
    parts = get_args(kind)
    plain = all(isinstance(part, (str, int)) or _can_check(part) for part in parts)
    return kind in (int, float, str, bool, dict, list, type(None)) or (bool(parts) and plain)
