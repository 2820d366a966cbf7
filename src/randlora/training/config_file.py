"""Training configs from YAML files and command-line words, parsed by jsonargparse."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from randlora.errors import ConfigError
from randlora.training.config import DataConfig, MethodConfig, OptimizationConfig, TrainConfig
from randlora.training.schema import check_key, check_value, keys


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a training config.

    Args:
        path: A YAML file with the keys of `TrainConfig`; sections are nested.
        overrides: Command-line words that take precedence, such as `["--method.r", "8", "--seed=1"]`.

    Returns:
        The config, with values of the right types; `validate` checks the rest.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, or a value has the wrong type.
    """
    content = _read(Path(path))
    for key, value in _entries(content):
        check_key(key)
        if isinstance(value, Mapping) != hasattr(keys()[key], "__dataclass_fields__"):
            check_value(key, value, keys()[key])
    return _parse(content, overrides)


def config_parser() -> ArgumentParser:
    """The parser of `TrainConfig`'s keys, for its help text; it raises instead of exiting."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig)
    return parser


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), expected="a YAML file that can be read", got=str(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(str(path), expected="YAML", got=str(error)) from error
    if not isinstance(content, dict):
        raise ConfigError(str(path), expected="keys and values", got=f"{type(content).__name__}")
    return content


def _entries(content: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and values, of sections and of what is in them."""
    entries: list[tuple[str, Any]] = []
    for name, value in content.items():
        entries.append((f"{prefix}{name}", value))
        if isinstance(value, Mapping) and f"{prefix}{name}" not in ("method.options", "fingerprint"):
            entries.extend(_entries(value, f"{prefix}{name}."))
    return entries


def _parse(content: dict[str, Any], overrides: Sequence[str]) -> TrainConfig:
    for word in overrides:
        if word.startswith("--"):
            check_key(word[2:].partition("=")[0])
    parser = config_parser()
    try:
        parsed = parser.parse_args(list(overrides), namespace=parser.parse_object(content)).as_dict()
    except argparse.ArgumentError as error:
        raise _readable(error) from error
    sections = {"method": MethodConfig, "data": DataConfig, "optimization": OptimizationConfig}
    return TrainConfig(**{key: sections[key](**value) if key in sections else value for key, value in parsed.items()})


def _readable(error: argparse.ArgumentError) -> ConfigError:
    """The parser's error in our words where it names a key, else its own in one line."""
    message = str(error)
    named = re.search(r'key "(?P<key>[^"]+)".*(?:Got|Given) value: (?P<value>.*)', message, re.DOTALL)
    if named:
        try:
            # The parser has tried to read the value as the key's type, so a string says what it is.
            check_value(named["key"], named["value"].strip(), keys()[named["key"]])
        except ConfigError as ours:
            return ours
    return ConfigError(message)
