"""Training configs from YAML files and command-line words."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from randlora.errors import ConfigError
from randlora.tasks.paths import FILE, kind_of
from randlora.training import strict_yaml
from randlora.training.config import TrainConfig
from randlora.training.schema import check_key, check_value, fits, keys

_OPEN = ("method.options", "fingerprint")
"""Sections whose keys are not fixed."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a training config.

    Args:
        path: A YAML file with the keys of `TrainConfig`; sections are nested.
        overrides: Command-line words that take precedence, such as `["--method.r", "8", "--seed=1"]`.

    Returns:
        The config, with values of the right types; `validate` checks the rest.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or there twice, or a value has the wrong type.
    """
    values = _leaves(_read(Path(path)))
    for key, value in _parse(overrides).items():
        section, _, name = key.rpartition(".")
        if section in _OPEN:
            values[section] = {**values.get(section, {}), name: value}
        else:
            values[key] = value
    config: TrainConfig = _build(TrainConfig, "", values)
    return config


def config_parser() -> ArgumentParser:
    """The parser of `TrainConfig`'s keys, for its help text."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig)
    return parser


def _read(path: Path) -> dict[str, Any]:
    if (kind := kind_of(path)) != FILE:
        raise ConfigError(str(path), expected="a YAML file", got=kind)
    try:
        content = strict_yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), expected="a YAML file that can be read", got=str(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(str(path), expected="YAML", got=str(error)) from error
    if not isinstance(content, dict):
        raise ConfigError(str(path), expected="keys and values", got=f"{type(content).__name__}")
    return content


def _leaves(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and checked values of a nested mapping."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        key = f"{prefix}{name}"
        check_key(key)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(keys()[key]):
            found |= _leaves(value, f"{key}.")
        else:
            check_value(key, value, keys()[key])
            found[key] = value
    return found


def _parse(words: Sequence[str]) -> dict[str, Any]:
    """Dotted keys and values of `--key value` and `--key=value`."""
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(word, expected="--key value")
        key, equals, text = word[2:].partition("=")
        check_key(key)
        if not equals:
            if not rest:
                raise ConfigError(key, expected="a value after it", got="nothing")
            text = rest.pop(0)
        found[key] = _typed(key, text, keys().get(key, Any))
    return found


def _typed(key: str, text: str, kind: Any) -> Any:
    """A word as the type of its key: a string as it is, anything else as YAML has it."""
    is_string = kind is not Any and fits(text, kind)
    if is_string and text != "null" and not text.startswith("["):
        return text
    try:
        value = strict_yaml.load(text)
    except yaml.YAMLError:
        value = text
    if fits(value, kind):
        return value
    check_value(key, text, kind)
    return text


def _build(section: Any, prefix: str, values: Mapping[str, Any]) -> Any:
    """A config class from dotted keys."""
    given: dict[str, Any] = {}
    for name, kind in _kinds(section).items():
        key = f"{prefix}{name}"
        if dataclasses.is_dataclass(kind):
            given[name] = _build(kind, f"{key}.", values)
        elif key in values:
            given[name] = values[key]
    return section(**given)


def _kinds(section: Any) -> dict[str, Any]:
    return {key: kind for key, kind in keys(section).items() if "." not in key}
