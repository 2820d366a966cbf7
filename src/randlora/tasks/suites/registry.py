"""Data sets that papers score together, by name: what a config's `data.suite` stands for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter

from randlora.errors import ConfigError
from randlora.messages import closest

FILES = ("glue", "language", "vision")
"""Names of the YAML files beside this module, `NAME.yaml`."""

_SPLITS = ("validation", "test", "subset")


@dataclass(frozen=True)
class SuiteEntry:
    """One data set.

    Attributes:
        tasks: Names of the tasks that it is for.
        data: Values of the data section; a task without such a key does without.
        files: Values that take their place where `data.train` is a .tsv file: those of the data set's own files.
        epochs: Passes over the whole training data, or half of it, in the paper's study; None where it has none.
        classes: Number of classes; None where there are none.
        unverified: What of the hub's names is from memory and not checked; empty for nothing.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    tasks: list[str]
    data: dict[str, Any]
    files: dict[str, Any] = field(default_factory=dict)
    epochs: float | None = None
    classes: int | None = None
    unverified: str = ""


@cache
def suite_entries() -> Mapping[str, SuiteEntry]:
    """All data sets by name, such as "glue/cola"."""
    folder, kind = Path(__file__).parent, TypeAdapter(dict[str, SuiteEntry])
    found: dict[str, SuiteEntry] = {}
    for name in FILES:
        found |= kind.validate_python(yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")))
    return found


def made_up_classes(suite: str | None) -> list[str]:
    """Names for as many classes as a suite has; for two where it does not say, or there is none."""
    entry = suite_entries().get(suite or "")
    return [str(number) for number in range((entry and entry.classes) or 2)]


def with_suite(task: str, data: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """A data section with the values of the suite that it names, where it has none of its own.

    With training data of its own it takes none of the suite's splits.

    Args:
        task: The task's name.
        data: Keys and values as a config file has them.
        keys: The keys that the task's data section may have.

    Raises:
        ConfigError: There is no such suite for the task.
    """
    name = data.get("suite")
    if not isinstance(name, str):
        return dict(data)
    entry = suite_entries().get(name)
    if entry is None or task not in entry.tasks:
        fitting = [known for known, other in suite_entries().items() if task in other.tasks]
        near = closest(name, fitting)
        known = ", ".join(sorted({known.split("/")[0] + "/…" for known in fitting})) or "none"
        hint = f"did you mean {near}?" if near else "docs/suites.md lists them"
        if entry is not None:
            hint = f"that is for task: {' or '.join(entry.tasks)}"
        raise ConfigError("data.suite", expected=f"a suite of {task}, {known}", got=repr(name), hint=hint)
    values = entry.data
    if data.get("train"):  # the suite's other splits do not belong to it
        values = {key: value for key, value in values.items() if key not in _SPLITS or not isinstance(value, str)}
    if str(data.get("train", "")).lower().endswith(".tsv"):
        values = {**values, **entry.files}
    return {**{key: value for key, value in values.items() if key in keys}, **data}
