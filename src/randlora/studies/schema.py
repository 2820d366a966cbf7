"""Suites from YAML files and command-line words; what is wrong with one in one line."""

import dataclasses
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from randlora.errors import ConfigError
from randlora.files import expanded
from randlora.messages import closest
from randlora.studies.cells import cells_of, rows_of
from randlora.studies.keys import flat
from randlora.studies.paper import check_paper, left_of_paper
from randlora.studies.scores import check_score
from randlora.studies.suite import Name, Score, Suite
from randlora.training.config.file import pairs, read_mapping, typed
from randlora.training.config.schema import check_value, describe, keys
from randlora.training.config.synonyms import ours, put

_SUITE: TypeAdapter[Suite] = TypeAdapter(Suite)
_KINDS = get_type_hints(Suite, include_extras=True)
_SCORE = get_type_hints(Score, include_extras=True)


def load_suite(path: str | Path, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite, and check it with every cell that it stands for.

    Args:
        path: A YAML file, or the folder of a study, which holds its suite.
        overrides: Command-line words that take precedence, such as `["--base.data.train", "train.csv"]`.

    Raises:
        ConfigError: The file cannot be read, a key or a name is unknown, a value does not fit, or a cell is no run.
    """
    path = expanded(path)
    if path.is_dir() and not (path / SUITE_FILE).is_file():
        expected = f"a suite, or the folder of a study, with {SUITE_FILE}"
        raise ConfigError(str(path), expected=expected, got="a folder without")
    values = read_mapping(path / SUITE_FILE if path.is_dir() else path)
    written = suite_of(values)  # the file's faults are the file's, whatever the words replace
    check_paper(written, rows_of(written))
    for key, text in pairs(overrides):
        if text is None:
            raise ConfigError(key, expected="a value after it", got="nothing")
        _override(values, key, text)
    suite = suite_of(values)
    suite.paper = left_of_paper(suite, written)
    check_paper(suite, rows_of(suite))
    check_score(suite, cells_of(suite))
    return suite


SUITE_FILE = "suite.yaml"
"""A study's own copy of its suite, in its folder."""


def in_yaml(suite: Suite) -> str:
    """A suite as a file."""
    text: str = yaml.safe_dump(dataclasses.asdict(suite), sort_keys=False, allow_unicode=True, width=120)
    return text


def suite_of(values: Mapping[str, Any]) -> Suite:
    """The suite of nested keys and values.

    Raises:
        ConfigError: A key is unknown or missing, or a value is of another type or out of range.
    """
    try:
        return _SUITE.validate_python(dict(values))
    except ValidationError as error:
        raise _explained(error.errors()[0], values) from error


def _explained(fault: Any, values: Mapping[str, Any]) -> ConfigError:
    """A fault that pydantic found, by its key."""
    path = [str(part) for part in fault["loc"]]
    key = ".".join(path)
    if fault["type"] == "unexpected_keyword_argument":
        return _unknown(key, _KINDS if len(path) == 1 else ())
    if path[-1] == "[key]":
        return ConfigError(path[0], expected=describe(Name), got=repr(path[1]))
    kind = _KINDS[path[0]]
    if path[0] not in values:
        return ConfigError(path[0], expected=describe(kind), got="nothing")
    if len(path) == 2 and path[0] in ("tasks", "shots", "methods"):
        got = "nothing" if fault["input"] is None else repr(fault["input"])
        hint = "{}, where it has none" if fault["input"] is None else ""
        return ConfigError(key, expected="a section with keys of its own", got=got, hint=hint)
    if path[0] not in ("paper", "score") or len(path) == 1:
        try:
            check_value(path[0], values[path[0]], kind)
        except ConfigError as wrong:
            return wrong
    return ConfigError(key, expected="a value that fits", got=repr(fault["input"]), hint=fault["msg"])


def _unknown(key: str, known: Any) -> ConfigError:
    near = closest(key, known)
    return ConfigError(key, expected="a known key of a suite", hint=f"did you mean {near}?" if near else "")


def _override(values: dict[str, Any], key: str, text: str) -> None:
    """Put a word of the command line in its place."""
    part, _, rest = key.partition(".")
    if part not in _KINDS:
        raise _unknown(key, [*_KINDS, *(f"base.{name}" for name in keys(""))])
    if not rest:
        values[part] = typed(key, text, _KINDS[part])
        return
    section = values
    if part in ("tasks", "shots", "methods"):
        name, _, rest = rest.partition(".")
        if name not in values.get(part, {}) or not rest:
            known = ", ".join(values.get(part, {})) or "none"
            raise ConfigError(key, expected=f"one of the suite's {part} ({known}) and a key of it")
        section, part = values[part], name
    elif part == "score":
        values[part] = {**(values.get(part) or {}), rest: typed(key, text, _SCORE.get(rest, Any))}
        return
    elif part != "base":
        raise _unknown(key, _KINDS)
    if section is values[key.partition(".")[0]] and key.startswith("methods."):
        section[part] = deepcopy(section[part])
        put(section[part], rest, typed(key, text, Any), replace=True)
        return
    given = flat(section[part], part)
    task = str(given.get("task", flat(values["base"], "base").get("task", "")))
    rest = ours(rest)
    section[part] = {**given, rest: typed(key, text, keys(task).get(rest, Any))}
