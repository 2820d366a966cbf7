"""Names for what a config says, short enough for a legend; where two would be the same, with what differs."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from randlora.messages import short
from randlora.training.config.sections import MethodConfig
from randlora.training.run.folder import flat

_COMMIT = re.compile("@[0-9a-f]{40}(?=:|$)")
"""Of a hub data set, which a study reads at one; a branch or a tag is shown."""


def method_name(method: MethodConfig) -> str:
    """A method with its rank, such as "lora r=16" or, with a budget in LoRA's rank, "randlora as LoRA r=16"."""
    if method.r is None or method.name in {"full", "head"}:
        return method.name
    if isinstance(method.r, dict):
        return f"{method.name} as LoRA r={method.r['as_lora']}"
    return f"{method.name} r={method.r}"


def data_name(data: Any) -> str:
    """The training data by their suite's or file's name, their folder's where that only says what they are for."""
    if data.suite is not None:
        return short(data.suite)
    source = data.train
    if isinstance(source, list):
        names = [part["source"] if isinstance(part, Mapping) else part for part in source]
        return short(", ".join(_source_name(str(name)) for name in names))
    return short(_source_name(source))


def _source_name(source: str) -> str:
    path = PurePath(_COMMIT.sub("", source))
    telling = path.parent.name if path.stem in {"train", "training"} and path.parent.name else path.stem or source
    return telling if telling not in {"data"} or len(path.parts) < 3 else path.parent.parent.name


def distinguished(names: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names, with the values that differ added where a name is there twice.

    Args:
        names: The names.
        configs: What each stands for, nested.

    Returns:
        Names that are all different, each short enough for a legend.

    Example:
        >>> distinguished(["lora", "lora", "full"], [{"dropout": 0}, {"dropout": 0.1}, {"dropout": 0}])
        ['lora dropout=0', 'lora dropout=0.1', 'full']
    """
    values = [flat(dict(config)) for config in configs]
    found = []
    for name, own in zip(names, values, strict=True):
        twins = [other for other_name, other in zip(names, values, strict=True) if other_name == name]
        telling = [key for key in own if any(other.get(key) != own[key] for other in twins)]
        words = filter(None, (_words(key, own[key]) for key in telling))
        found.append(short(" ".join([name, *words])))
    counts = Counter(found)
    numbers: Counter[str] = Counter()
    for place, name in enumerate(found):
        if counts[name] > 1:
            numbers[name] += 1
            found[place] = f"{name} ({numbers[name]})"
    return found


def _words(key: str, value: Any) -> str:
    """A key of a config with its value; a value that is a word speaks for itself, and no shots are all of the data."""
    if value is None:
        return "shots=all" if key.endswith("shots") else ""
    if key.endswith("classes"):
        return f"{value} classes"
    if isinstance(value, str):
        return PurePath(value).name if "/" in value else value
    return f"{key.rpartition('.')[2]}={value}"
