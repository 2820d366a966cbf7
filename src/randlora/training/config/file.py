"""Training configs from YAML files and command-line words."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from randlora.adapter_config import is_number
from randlora.errors import ConfigError
from randlora.tasks.paths import FILE, kind_of
from randlora.training.config import strict_yaml
from randlora.training.config.schema import check_key, check_value, config_of, fits, keys
from randlora.training.config.sections import TrainConfig
from randlora.training.config.synonyms import known_as, ours, put, rename


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a training config.

    Args:
        path: A YAML file with the keys of `TrainConfig`; sections are nested.
        overrides: Command-line words that take precedence, such as `["--method.r", "8", "--seed=1"]`.

    Returns:
        The config, with values of the right types and in their ranges; `validate` checks the rest.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or there twice, or a value has the wrong type.
    """
    values = rename(read_mapping(Path(path)))
    config_of(values)  # the file's faults are the file's, whatever the words replace
    words = _words(overrides)
    known = keys(str(words.get("task", values.get("task", TrainConfig.task))))
    for key, text in words.items():
        check_key(key, known)
        put(values, key, typed(key, text, known.get(key, Any)), replace=True)
    return config_of(values)


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    if (kind := kind_of(path)) != FILE:
        raise ConfigError(str(path), expected="a YAML file", got=kind)
    try:
        content = strict_yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), expected="a YAML file that can be read", got=str(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(str(path), expected="YAML", got=str(error)) from error
    if not isinstance(content, dict):
        got = "nothing" if content is None else type(content).__name__
        raise ConfigError(str(path), expected="keys and values", got=got)
    return content


def _words(words: Sequence[str]) -> dict[str, str]:
    """Our dotted keys and the texts of command-line words."""
    found: dict[str, str] = {}
    given: dict[str, str] = {}
    for key, text in pairs(words):
        name = known_as(key)
        if text is None:
            check_key(name, keys(TrainConfig.task))
            raise ConfigError(key, expected="a value after it", got="nothing")
        if given.setdefault(name, key) != key:
            raise ConfigError(name, expected="one value", got=f"two, as --{given[name]} and as --{key}")
        found[name] = text
    for key in given.values():
        ours(key)
    return found


def pairs(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """The keys and texts of `--key value` and `--key=value`; None for a key with no value behind it.

    Raises:
        ConfigError: A word is no key where one should be.
    """
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(word, expected="--key value")
        key, equals, text = word[2:].partition("=")
        if equals:
            yield key, text
        else:
            yield key, rest.pop(0) if rest and not rest[0].startswith("--") else None


def typed(key: str, text: str, kind: Any) -> Any:
    """A word as the type of its key: a string as it is where the key takes strings and no such number.

    Args:
        key: The key, for the message.
        text: The word.
        kind: The type.

    Raises:
        ConfigError: The word does not fit it.
    """
    try:
        value = strict_yaml.load(text) if text else ""  # nothing is no null
    except yaml.YAMLError:
        value = text
    as_yaml = kind is Any or text == "null" or text.startswith("[") or is_number(value)
    chosen = next((one for one in ((value, text) if as_yaml else (text, value)) if fits(one, kind)), text)
    check_value(key, chosen, kind)
    return chosen
