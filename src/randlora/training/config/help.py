"""The keys of a config in words, from the docstrings of its sections."""

import dataclasses
import textwrap
from typing import Any

from docstring_parser import parse

from randlora.tasks import TASKS
from randlora.training.config.schema import describe, keys
from randlora.training.config.sections import TrainConfig

_WIDTH = 100


def keys_in_words() -> str:
    """Every key with its type, default and meaning, section by section; data sections task by task."""
    parts = [_section(TrainConfig, "", ("method", "data", "optimization", "fingerprint"))]
    default = TrainConfig()
    parts += [_section(type(getattr(default, name)), f"{name}.") for name in ("method", "optimization")]
    for name, task in TASKS.items():
        parts.append(f"With task: {name}\n\n{_section(task.data_class, 'data.')}")
    return "\n\n".join(parts)


def _section(section: type, prefix: str, left_out: tuple[str, ...] = ()) -> str:
    meanings = _meanings(section)
    kinds = keys(TrainConfig.task, section, prefix)
    entries = []
    for entry in dataclasses.fields(section):
        if entry.name not in left_out:
            title = f"{prefix}{entry.name}: {describe(kinds[prefix + entry.name])}, default {_default(entry)!r}"
            meaning = textwrap.indent(textwrap.fill(meanings.get(entry.name, ""), _WIDTH), "    ")
            entries.append(f"{title}\n{meaning}")
    return "\n".join(entries)


def _meanings(section: type) -> dict[str, str]:
    """Field -> its description, those of the classes below it included."""
    found: dict[str, str] = {}
    for part in reversed(section.__mro__):
        if dataclasses.is_dataclass(part):
            entries = parse(part.__doc__ or "").params
            found |= {entry.arg_name: " ".join((entry.description or "").split()) for entry in entries}
    return found


def _default(entry: "dataclasses.Field[Any]") -> Any:
    return entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
